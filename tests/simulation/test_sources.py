import numpy as np
import pytest

from skysub.simulation.observation import observe
from skysub.simulation.profiles import profile_tables
from skysub.simulation.scene import Galaxies, Scene, Stars, named_scene
from skysub.simulation.sources import CATALOG_TYPE, catalog, paint_aureoles, paint_sources

SHAPE = (601, 601)
QUIET = named_scene("quiet")
SEEN = observe(QUIET, 1, 0, seed=1, shape=SHAPE, band="r")
BARE = Stars(aureole=0.0)


def source(**values):
    row = np.zeros(1, CATALOG_TYPE)
    for name, value in ({"x": 300.3, "y": 299.8, "flux": 1e5, "axis_ratio": 1.0} | values).items():
        row[name] = value
    return row


def test_point_source_holds_its_flux_and_width():
    plane = paint_sources(source(), SEEN, stars=BARE)
    assert plane.sum(dtype=np.float64) == pytest.approx(1e5, rel=1e-3)
    x = np.arange(SHAPE[1])
    assert (plane * x).sum() / plane.sum() == pytest.approx(300.3, abs=0.01)
    assert np.sum(plane) ** 2 / np.sum(plane.astype(np.float64) ** 2) == pytest.approx(
        SEEN.psf_area, rel=0.01
    )
    assert plane.max() / 2 == pytest.approx(plane[300, 300 + round(SEEN.seeing / 2)], rel=0.25)


@pytest.mark.parametrize("radius", [1.0, 5.0, 40.0])
@pytest.mark.parametrize("axis_ratio", [1.0, 0.4])
def test_disk_holds_its_flux_and_half_of_it_within_its_radius(radius, axis_ratio):
    row = source(radius=radius, axis_ratio=axis_ratio, angle=0.7, flux=1e7)
    plane = paint_sources(row, SEEN, stars=BARE).astype(np.float64)
    assert plane.sum() == pytest.approx(1e7, rel=0.01)
    if radius == 40.0:
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
        dx, dy = x - 300.3, y - 299.8
        along, across = dx * np.cos(0.7) + dy * np.sin(0.7), dy * np.cos(0.7) - dx * np.sin(0.7)
        r = np.sqrt(axis_ratio * along**2 + across**2 / axis_ratio)
        assert plane[r < radius].sum() == pytest.approx(0.5e7, rel=0.02)


def test_profile_tables_tend_to_psf_and_to_disk():
    tables, steps = profile_tables(4.0, (0.01, 200.0))
    r = np.arange(tables.shape[1] - 1) * steps[0]
    moffat = 2 / (np.pi * 16) * (1 + (r / 4) ** 2) ** -3
    np.testing.assert_allclose(tables[0][:100], moffat[:100], rtol=2e-3)
    r = np.arange(tables.shape[1] - 1) * steps[1]
    h = 200 / 1.67835
    disk = np.exp(-r / h) / (2 * np.pi * h**2)
    middle = (r > 40) & (r < 800)
    np.testing.assert_allclose(tables[1][:-1][middle], disk[middle], rtol=5e-3)


def test_aureole_holds_its_share_of_the_light():
    stars = Stars(aureole=0.03, aureole_radius=250.0)
    bright = paint_aureoles(source(flux=1e7, magnitude=14.5), SEEN, stars=stars)
    assert bright.sum(dtype=np.float64) == pytest.approx(3e5, rel=0.01)
    # a fainter star's is smoothed over cells, and holds as much
    shared = paint_aureoles(source(flux=1e7, magnitude=20.0), SEEN, stars=stars)
    assert shared.sum(dtype=np.float64) == pytest.approx(3e5, rel=0.05)
    # falls as r^-2 between the core and the edge
    assert bright[300, 340] / bright[300, 380] == pytest.approx(4, rel=0.25)


def test_counts_follow_the_literature():
    seen = observe(QUIET, 1, 0, seed=1, shape=(3000, 3000), band="i")
    scene = Scene(stars=Stars(density=1.0, aureole=0.0), galaxies=Galaxies())
    rows = catalog(scene, seen, seed=1)
    on = rows[(rows["x"] > 0) & (rows["x"] < 3000) & (rows["y"] > 0) & (rows["y"] < 3000)]
    arcmin2 = 100.0
    stars, galaxies = on[on["type"] == "star"], on[on["type"] == "galaxy"]
    assert np.count_nonzero(stars["magnitude"] < 24.5) / arcmin2 == pytest.approx(6, rel=0.15)
    near_25 = np.abs(galaxies["magnitude"] - 25) < 0.5
    assert np.count_nonzero(near_25) / arcmin2 == pytest.approx(46, rel=0.1)
    assert len(np.unique(rows["id"])) == len(rows)


def test_detected_means_five_sigma():
    rows = catalog(QUIET, SEEN, seed=1)
    stars = rows[rows["type"] == "star"]
    assert stars["magnitude"][stars["detected"]].max() <= SEEN.depth
    assert stars["magnitude"][~stars["detected"]].min() >= SEEN.depth


def test_probes_lie_near_the_middle_of_every_detector():
    scene = named_scene("galaxy:100")
    for detector in (0, 3, 30):
        seen = observe(scene, 2, detector, seed=1, shape=(2000, 2000), band="r")
        rows = catalog(scene, seen, seed=1)
        large = rows[(rows["type"] == "probe_galaxy") & (rows["radius"] > 21)]
        on = large[(np.abs(large["x"] - 1000) < 900) & (np.abs(large["y"] - 1000) < 900)]
        assert len(on) == 1
        assert on["radius"][0] == 100
        # mean surface brightness of 25 within the effective radius
        brightness = on["magnitude"][0] + 2.5 * np.log10(2 * np.pi * (0.2 * 100) ** 2)
        assert brightness == pytest.approx(25)


def test_crowded_field_has_the_density_asked_for():
    scene = named_scene("crowded:150")
    seen = observe(scene, 1, 0, seed=1, shape=(1500, 1500), band="r")
    rows = catalog(scene, seen, seed=1)
    on = (rows["type"] == "star") & (rows["magnitude"] < 24.5)
    on &= (rows["x"] > 0) & (rows["x"] < 1500) & (rows["y"] > 0) & (rows["y"] < 1500)
    assert np.count_nonzero(on) / 25 == pytest.approx(900, rel=0.05)
