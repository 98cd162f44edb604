import json
from dataclasses import asdict

import pytest

from skysub.errors import ConfigError
from skysub.simulation.scene import SCENES, Scene, named_scene


@pytest.mark.parametrize("name", SCENES)
def test_named_scenes_survive_json(name):
    scene = named_scene(name)
    assert scene.name == name
    assert Scene.from_dict(json.loads(json.dumps(asdict(scene)))) == scene


def test_scenes_differ_in_what_they_are_named_for():
    assert named_scene("galaxy:50").probes.galaxy_radius == 50
    assert named_scene("crowded:150").stars.density == 150
    assert named_scene("bright_star:9").probes.star_magnitudes == (9.0,)
    assert len({named_scene(name) for name in SCENES}) == len(SCENES)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nebula", "no scene 'nebula'"),
        ("quiet:3", "takes no number"),
        ("galaxy:big", "'big' is not a number"),
        ("galaxy:-5", "0 or more"),
        ("galaxy:nan", "0 or more"),
        ("galaxy:", "not a number"),
    ],
)
def test_bad_names_are_refused(name, says):
    with pytest.raises(ConfigError, match=says):
        named_scene(name)
