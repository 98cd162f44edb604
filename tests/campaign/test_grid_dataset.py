"""Grids of a campaign as datasets of xarray: of detectors, of visits, and where some are not done."""

import numpy as np
import pytest

import skysub
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign
from skysub.errors import NotDoneError

pytest.importorskip("xarray")


@pytest.fixture
def campaign(raw, tmp_path, steps):  # noqa: ARG001 - steps makes them importable
    """The first two steps of the chain; detector 2 fails, and is borne."""
    path = tmp_path / "chain.yaml"
    path.write_text(
        f"inputs: '{raw}/*.fits'\nsteps:\n"
        "  'chain_steps:first': {bad: [2]}\n  'chain_steps:second': {missing: 1, factor: 3}\n"
    )
    outcome = run_campaign(load_recipe(str(path), cluster="threads"), tmp_path / "out")
    assert (outcome.done, outcome.failed) == (6, 2)
    return skysub.open_campaign(tmp_path / "out")


def test_a_grid_of_detectors(campaign):
    opened = campaign.open_dataset("level")
    assert opened["level"].dims == ("visit", "detector", "level_0")
    assert opened["level"].shape == (2, 2, 1)
    for visit in (11, 12):
        for detector in (0, 1):
            value = opened["level"].sel(visit=visit, detector=detector).to_numpy()
            np.testing.assert_array_equal(value, campaign.product("level", visit, detector))
    assert opened["band"].to_numpy().tolist() == ["r", "r"]
    assert opened["done"].to_numpy().all()


def test_grids_that_a_step_over_visits_made(campaign):
    sky = campaign.open_dataset("sky", run="0001")
    assert sky["sky"].dims == ("visit", "sky_0")
    np.testing.assert_array_equal(sky["sky"].sel(visit=12), campaign.product("sky", 12))
    assert sky["sky"].sel(visit=11).to_numpy()[1] == 2
    offset = campaign.open_dataset("offset")
    assert offset["offset"].dims == ("visit", "detector", "offset_0")
    np.testing.assert_array_equal(
        offset["offset"].sel(visit=12, detector=1), campaign.product("offset", 12, 1)
    )


def test_what_is_not_there(campaign):
    with pytest.raises(NotDoneError, match="no run '0007'"):
        campaign.open_dataset("level", run="0007")
    campaign.path.path.joinpath("runs/0001/units/chain_steps.second/11.visit").unlink()
    opened = campaign.open_dataset("offset")
    assert opened["visit"].to_numpy().tolist() == [12]
