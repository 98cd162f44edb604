"""Where inputs come from: globs, patterns, tables; and what is known of them without their pixels."""

import pytest

import skysub
from skysub.campaign.inputs import found_inputs
from skysub.campaign.recipe import Source, load_recipe
from skysub.campaign.run import run_campaign
from skysub.errors import InputsError, RecipeError


def found(**source):
    return list(found_inputs([Source.model_validate(source)]))


def test_globs_may_overlap(raw):
    units = found(files=[f"{raw}/*.fits", f"{raw}/v11*.fits"])
    assert sorted((unit.visit, unit.detector) for unit in units) == [
        (v, d) for v in (11, 12) for d in (0, 1, 2)
    ]
    assert {(unit.band, unit.exposure_time, unit.shape, unit.unit) for unit in units} == {
        ("r", 30.0, (96, 128), "electron")
    }


def test_what_a_pattern_says_stands_above_headers(tmp_path, make_visit):
    for visit in (501, 502):
        (tmp_path / f"{visit}").mkdir()
        for detector in (7, 8):
            make_visit(tmp_path / f"{visit}/x_{visit}_d{detector}_g.fits", 1, 1)
    (tmp_path / "501/x_502_d9_g.fits").write_bytes(b"the visit is not the folder's")
    units = found(pattern=f"{tmp_path}/{{visit}}/*_{{visit}}_d{{detector}}_{{band}}.fits")
    assert [(unit.visit, unit.detector, unit.band) for unit in units] == [
        (501, 7, "g"),
        (501, 8, "g"),
        (502, 7, "g"),
        (502, 8, "g"),
    ]


def test_a_pattern_is_carried_to_the_workers(tmp_path, make_visit):
    make_visit(tmp_path / "v77_d5.fits", 1, 1)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"inputs: {{pattern: '{tmp_path}/v{{visit}}_d{{detector}}.fits'}}\n"
        "steps: {background: {fit: {superpixel: 32}}}\ncluster: threads\n"
    )
    assert run_campaign(load_recipe(str(recipe)), tmp_path / "out").done == 1
    made = skysub.open_campaign(tmp_path / "out").visit_image(77, 5)
    assert (made.visit, made.detector) == (77, 5)


@pytest.mark.parametrize("suffix", ["csv", "ecsv"])
def test_tables(raw, tmp_path, suffix):
    from astropy.table import Table

    table = Table(
        {"path": ["raw/v11_d0.fits", str(raw / "v12_d1.fits")], "visit": [901, 902], "band": ["y", "z"]}
    )
    table.write(tmp_path / f"list.{suffix}", format=f"ascii.{suffix}")
    units = found(table=str(tmp_path / f"list.{suffix}"))
    assert [(unit.visit, unit.detector, unit.band) for unit in units] == [(901, 0, "y"), (902, 1, "z")]


def test_tables_that_are_none(tmp_path):
    (tmp_path / "a.csv").write_text("file,visit\na.fits,3\n")
    with pytest.raises(InputsError, match="has no column 'path'; its columns are file, visit"):
        found(table=str(tmp_path / "a.csv"))
    with pytest.raises(InputsError, match=r"a table of inputs is \.csv, \.ecsv, \.parquet, not \.txt"):
        found(table="a.txt")
    with pytest.raises(InputsError, match="cannot be read as a table"):
        found(table=str(tmp_path / "none.csv"))
    (tmp_path / "b.csv").write_text("path, visit\na.fits, 3\n ,4\n")
    with pytest.raises(InputsError, match=r"b\.csv, row 2: the path is missing"):
        found(table=str(tmp_path / "b.csv"))
    (tmp_path / "c.csv").write_text("path,visit\na.fits,three\n")
    with pytest.raises(InputsError, match=r"row 1: visit must be a whole number, not 'three'"):
        found(table=str(tmp_path / "c.csv"))
    (tmp_path / "d.csv").write_text("path,visit\n")
    with pytest.raises(InputsError, match="has no rows"):
        found(table=str(tmp_path / "d.csv"))


def test_a_mapping_is_checked():
    with pytest.raises(
        RecipeError, match=r"inputs\.0\.ingest: unknown key 'detektor'; did you mean 'detector'"
    ):
        found(files="a", ingest={"detektor": 3})


@pytest.mark.parametrize("source", ["files", "pattern", "table"])
def test_inputs_are_local(source):
    with pytest.raises(InputsError, match=r"^s3://night/.*: inputs are local files"):
        found(**{source: "s3://night/{visit}_{detector}.fits"})


def test_inputs_in_a_table_are_local(raw, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text(f"path\n{raw}/v11_d0.fits\ns3://night/v11_d1.fits\n")
    with pytest.raises(InputsError, match=r"list\.csv, row 2: s3://night/v11_d1\.fits: inputs are local"):
        found(table=str(table))


def test_nothing_matches(raw):
    with pytest.raises(InputsError, match=r"no file matches '.*x_\*\.fits': .*raw holds 6 files and folders"):
        found(files=f"{raw}/x_*.fits")
    with pytest.raises(InputsError, match="no file matches the pattern"):
        found(pattern=f"{raw}/w{{visit}}_{{detector}}.fits")
    with pytest.raises(InputsError, match="names no inputs"):
        list(found_inputs([]))


def test_what_cannot_be_read_is_told_apart(raw):
    (raw / "v11_d0.fits").write_bytes(b"")
    units = found(files=f"{raw}/v11*.fits")
    assert units[0].path.endswith("v11_d0.fits")
    assert not units[0].reason.startswith("/")
    assert len(units) == 3


def test_a_row_whose_file_never_was(tmp_path):
    (tmp_path / "list.csv").write_text("path,visit,detector\nnope.fits,1,2\n")
    (missing,) = found_inputs([Source(table=str(tmp_path / "list.csv"))])
    assert missing.reason == "there is no such file"
