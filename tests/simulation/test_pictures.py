import pytest

from skysub.simulation.detector import simulate_detector
from skysub.simulation.pictures import draw_scene
from skysub.simulation.scene import named_scene


def test_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    visit_image, truth = simulate_detector(named_scene("moonlit"), 1, 0, seed=1, shape=(64, 96))
    draw_scene(
        visit_image.image, truth, truth.sky, tmp_path / "moonlit.png", title="moonlit, the truth itself"
    )
    assert (tmp_path / "moonlit.png").read_bytes().startswith(b"\x89PNG")
