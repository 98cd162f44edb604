"""Recipes and profiles: what is found where, what is refused, and in which words."""

import pytest

from skysub.campaign.recipe import load_recipe
from skysub.campaign.steps import find_step
from skysub.cluster import Demand, connected, expected_slots, load_profile
from skysub.errors import ClusterError, InputsError, NotEnoughMemoryError, RecipeError


@pytest.fixture
def written(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("step: {}", "unknown key 'step'; did you mean 'steps'"),
        (
            "steps: {background: {}}\nproducts: {pixel: stored}",
            "unknown key 'pixel' in products; did you mean",
        ),
        (
            "steps: {background: {}}\nproducts: {pixels: maybe}",
            "products.pixels: must be 'stored' or",
        ),
        ("steps: {}", "a recipe runs one step at least, not none"),
        (
            "steps: {background: {}}\ninputs: {file: a}",
            "unknown key 'file' in inputs.0; did you mean 'files'",
        ),
        ("steps: {background: {}}\ninputs: {files: a, table: b}", "in one way: files, pattern or table"),
        (
            "steps: {background: {}}\ninputs: {pattern: 'raw/*.fits'}",
            r"pattern needs \{visit\} and \{detector\}",
        ),
        ("{}", "steps: is missing"),
        ("[1, 2]", "must hold keys and values, not list"),
        ("a: [", "is not sound YAML"),
        ("import: [3]", "import must be a name or a list of names"),
        ("import: mine.yaml", "imports go round in a circle"),
        ("import: nowhere.yaml", "there is no recipe 'nowhere.yaml'"),
    ],
)
def test_what_is_wrong_is_said(written, text, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe(written(text))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fitt": {}}, "steps.background: unknown key 'fitt'; did you mean 'fit'"),
        ({"fit": {"oder": 4}}, "steps.background.fit: unknown key 'oder'; did you mean 'order'"),
        ({"fit": {"order": 99}}, "order must be a whole number from 0 to 20, not 99"),
        ({"fit": {"order": "six"}}, "steps.background.fit.order: .*valid integer"),
    ],
)
def test_what_is_wrong_in_settings_is_said(settings, words):
    with pytest.raises(RecipeError, match=words):
        find_step("background").configured(settings)


def test_unknown_steps_name_the_nearest():
    with pytest.raises(RecipeError, match="no step 'calibrate'; did you mean 'calibrate_image'"):
        find_step("calibrate")
    with pytest.raises(RecipeError, match="cannot be imported"):
        find_step("nowhere:step")
    with pytest.raises(RecipeError, match=r"json:dumps is no skysub\.campaign\.steps\.Step"):
        find_step("json:dumps")


def test_the_settings_of_lsst_are_those_that_ship():
    import skysub

    step = find_step("calibrate_image")
    assert step.configured({}) == skysub.CalibrateImageConfig()
    assert step.configured({"flow": "lsst"}) == skysub.CalibrateImageConfig.named("lsst")
    changed = step.configured({"flow": "lsst", "sky": {"background": {"order": 3}}})
    assert (changed.sky.background.order, changed.sky.background.grid_rule) == (3, "floor_plus_one")


def test_a_recipe_builds_on_another(written):
    written(
        "steps: {background: {fit: {order: 3, superpixel: 64}}}\nproducts: {compression: zstd}", "base.yaml"
    )
    path = written("import: base.yaml\nsteps: {background: {fit: {order: 2}}}")
    recipe = load_recipe(path, inputs=["a*.fits"], settings=["products.pixels=on_demand"])
    assert recipe.steps["background"] == {"fit": {"order": 2, "superpixel": 64}}
    assert (recipe.products.compression, recipe.products.pixels) == ("zstd", "on_demand")
    assert recipe.inputs[0].files == ("a*.fits",)


def test_recipes_are_found_by_name_path_and_in_the_users_folder(written, tmp_path, monkeypatch):
    assert (
        load_recipe("background").steps
        == load_recipe("workflows/background.yaml").steps
        == {"background": {}}
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "skysub/workflows").mkdir(parents=True)
    written("import: calibrate_image\ndescription: mine", "skysub/workflows/background.yaml")
    assert load_recipe("background").description == "mine"
    with pytest.raises(RecipeError, match="did you mean 'calibrate_image'"):
        load_recipe("calibrate_imag")


def test_inputs_from_outside_keep_the_mapping(written):
    path = written("steps: {background: {}}\ninputs: {files: a, ingest: {visit: 3}}")
    source = load_recipe(path, inputs=["b"]).inputs[0]
    assert (source.files, source.ingest) == (("b",), {"visit": 3})
    path = written("steps: {background: {}}\ninputs: [{files: a, ingest: {visit: 3}}, {files: b}]")
    with pytest.raises(RecipeError, match="2 sources with mappings of their own"):
        load_recipe(path, inputs=["b"])


@pytest.mark.parametrize("setting", ["products", "=3", "a..b=1", "a=[1"])
def test_settings_that_are_none(setting):
    with pytest.raises(RecipeError, match="--set"):
        load_recipe("background", settings=[setting])


def test_profiles(written):
    assert load_profile({"profile": "local", "workers": 3}).workers == 3
    with pytest.raises(RecipeError, match=r"no cluster profile 'locl'.*did you mean 'local'"):
        load_profile({"profile": "locl"})
    with pytest.raises(RecipeError, match="unknown key 'worker' in cluster; did you mean 'workers'"):
        load_profile({"profile": "local", "worker": 3})
    with pytest.raises(RecipeError, match="workers"):
        load_profile({"profile": "local", "workers": 0})
    with pytest.raises(RecipeError, match=r"cluster\.address"):
        load_profile({"profile": "address"})
    mine = written("import: threads\nworkers: 5", "mine.yaml")
    assert load_profile({"profile": mine}).workers == 5


def test_memory_is_compared_before_anything_starts():
    profile = load_profile({"profile": "local", "workers": 2, "memory": "1 GiB"})
    words = r"each of 2 worker processes would have 1\.00 GiB .* need 3\.00"
    with pytest.raises(NotEnoughMemoryError, match=words), connected(profile, Demand(3 * 2**30, 5)):
        pass
    huge = 2**50
    with (
        pytest.raises(NotEnoughMemoryError),
        connected(load_profile({"profile": "local"}), Demand(huge, 5)),
    ):
        pass
    with (
        pytest.raises(NotEnoughMemoryError),
        connected(load_profile({"profile": "threads"}), Demand(huge, 5)),
    ):
        pass
    with pytest.raises(RecipeError, match=r"cluster\.memory"):
        expected_slots(load_profile({"profile": "local", "memory": "much"}), need=1, units=1)
    assert expected_slots(load_profile({"profile": "local"}), need=1, units=1) == 1


def test_no_scheduler_at_an_address():
    profile = load_profile({"profile": "address", "address": "tcp://127.0.0.1:1", "patience": 1})
    with pytest.raises(ClusterError, match="no Dask cluster to work on"), connected(profile, Demand(1, 1)):
        pass


def test_no_inputs(tmp_path, start):
    with pytest.raises(InputsError, match=r"no file matches '.*none\*\.fits': .* holds 1 files"):
        start(tmp_path, tmp_path / "out", inputs="none*.fits")
    assert not (tmp_path / "out/runs").exists()
