"""Templates of many visits, and what a joint fit makes of them."""

import dataclasses

import numpy as np
import pytest

import skysub
from skysub.background.amplifiers import AmplifierBackground, amplifier_grid
from skysub.errors import ConfigError, InvalidImageError, TemplatesError
from skysub.pipeline.joint.amplifier_layers import layer_means, pattern_layer, put_back
from skysub.pipeline.joint.templates import DetectorTemplate, StepTemplate, VisitTemplates
from skysub.pipeline.templates.cells import cells_of
from skysub.pipeline.templates.lesson import TemplateVisit
from skysub.pipeline.templates.make import TemplatesConfig, make_templates
from skysub.testing import make_visit_image

OFFSETS = np.array([1.8, -2.5, 0.4, 3.1, -1.2, -1.6])
CELLS = (62, 64)


def _pattern(n, y, x):
    return 2.5 * np.sin(2 * np.pi * (x * np.cos(n) + y * np.sin(n)) / 700 + n)


def _visit(
    make_record, sky_at, visit, *, numbers=range(6), offsets=OFFSETS, strength=0.0, steps=None, boxes=()
):
    """A visit with known offsets, steps and pattern; its cells hold what the detector's own fit left."""
    rng = np.random.default_rng([visit, 5])
    records, cells = [], {}
    for n in numbers:
        offset = offsets[n] + 0.03 * rng.standard_normal()
        record = make_record(
            n,
            offset=offset,
            seed=visit,
            visit=visit,
            amplifiers=boxes,
            steps=None if steps is None else steps[n],
            light=lambda x, y, n=n: strength * _pattern(n, y, x) if strength else 0 * x,
        )
        y = (np.arange(CELLS[0]) + 0.5)[:, None] * 2000 / CELLS[0]
        x = (np.arange(CELLS[1]) + 0.5)[None] * 2048 / CELLS[1]
        left = strength * _pattern(n, y, x) + rng.normal(0, 1.2, CELLS)
        own = record.background.evaluate()[y.astype(int), x.astype(int)]
        left += sky_at(n, y, x) + offset - own
        if steps is not None:
            for (y0, y1, x0, x1), step in zip(boxes, steps[n], strict=True):
                left += step * ((y >= y0) & (y < y1) & (x >= x0) & (x < x1))
        records.append(record)
        cells[n] = skysub.SkyCells(left.astype(np.float32), np.full(CELLS, 1.2, np.float32))
    return TemplateVisit(records, cells)


@pytest.fixture(scope="module")
def plain(make_record, sky_at):
    return [_visit(make_record, sky_at, visit) for visit in range(1, 11)]


@pytest.fixture(scope="module")
def templates(plain):
    return make_templates(plain)


def test_offsets_are_told_with_what_is_not_known_of_them(templates):
    assert dict(templates.flags) == {}
    assert templates.visits == tuple(range(1, 11))
    assert templates.frames == 0
    priors = templates.offset_priors(880.0)
    told = np.array([priors[n].mean for n in range(6)])
    # their mean is the sky's
    np.testing.assert_allclose(told - told.mean(), OFFSETS - OFFSETS.mean(), atol=0.15)
    assert all(0.01 < priors[n].deviation < 0.2 for n in range(6))


def test_the_order_of_visits_does_not_matter(plain, templates):
    shuffled = make_templates([plain[k] for k in (3, 9, 0, 5, 1, 8, 2, 7, 6, 4)])
    for n, one in templates.detectors.items():
        assert (one.constant, one.deviation) == (
            shuffled.detectors[n].constant,
            shuffled.detectors[n].deviation,
        )


def _filled(make_record, offset):
    starved = lambda x, y: np.hypot(x - 1024, y - 1000) < 800  # noqa: E731
    outside = np.zeros((16, 16), bool)
    outside[5:9, 5:9] = True
    return make_record(
        4, light=lambda x, y: 8 + 0 * (x + y), starved=starved, offset=offset, extrapolated=outside, seed=99
    )


def test_a_galaxy_that_fills_a_detector_is_not_its_offset(make_record, model_error, templates):
    records = [make_record(n, offset=OFFSETS[n], seed=99) for n in range(6) if n != 4]
    records.append(_filled(make_record, OFFSETS[4]))
    alone = skysub.visit_background(records)
    told = skysub.visit_background(records, templates=templates)
    errors = [abs(model_error(sky, 4, offset=OFFSETS[4]).mean()) for sky in (alone, told)]
    assert told.votes.lost == (4,)
    assert errors[1] < 0.4
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 2 * told.backgrounds[4].uncertainty().mean()
    assert errors[0] < 2 * alone.backgrounds[4].uncertainty().mean()
    assert told.templates == "10 visits in band 'r'"
    assert alone.templates == ""


def test_an_offset_that_changed_is_seen_and_said(make_record, model_error, templates):
    now = OFFSETS + np.array([0, 0, 6.0, 0, 0, 0])
    sky = skysub.visit_background(
        [make_record(n, offset=now[n], seed=98) for n in range(6)], templates=templates
    )
    assert sky.votes.changed == (2,)
    assert "offset_changed" in sky.detector_flags[2]
    assert abs(model_error(sky, 2, offset=now[2]).mean()) < 0.3


def test_templates_of_a_camera_that_was_rebuilt_are_not_believed(make_record, model_error, templates):
    now = OFFSETS[[3, 0, 5, 1, 2, 4]]
    sky = skysub.visit_background(
        [make_record(n, offset=now[n], seed=97) for n in range(6)], templates=templates
    )
    assert sky.votes.wider > 5
    assert max(abs(model_error(sky, n, offset=now[n]).mean()) for n in range(6)) < 0.35


def test_templates_of_another_band_camera_or_unit_are_refused_by_name(make_record, templates):
    records = [make_record(n, offset=OFFSETS[n], seed=96) for n in range(6)]
    plain = skysub.visit_background(records)
    for changes, word in (
        ({"band": "z", "name": "templates-z-20260101.fits"}, "templates-z-20260101.fits are of band 'z'"),
        ({"unit": "adu"}, "unit 'adu'"),
    ):
        other = dataclasses.replace(templates, **changes)
        sky = skysub.visit_background(records, templates=other)
        assert word in sky.flags["templates_unused"]
        assert sky.coefficients.tobytes() == plain.coefficients.tobytes()
        assert sky.templates == ""
    ours = [record.replace(camera="LSSTCam") for record in records]
    other = dataclasses.replace(templates, camera="DECam")
    assert "camera 'DECam'" in skysub.visit_background(ours, templates=other).flags["templates_unused"]
    assert "templates_unused" not in skysub.visit_background(ours, templates=templates).flags
    lacking = dataclasses.replace(
        templates, detectors={n: each for n, each in templates.detectors.items() if n != 3}
    )
    assert "3" in skysub.visit_background(records, templates=lacking).flags["templates_lack_detectors"]


def test_fringes_come_off_with_frames(make_record, sky_at, model_error):
    strengths = 1 + 0.2 * np.sin(np.arange(6))
    given = {"offsets": np.zeros(6), "numbers": range(4)}
    visits = [_visit(make_record, sky_at, v + 1, strength=s, **given) for v, s in enumerate(strengths)]
    made = make_templates(visits, TemplatesConfig(frames=1))
    assert made.frames == 1
    np.testing.assert_allclose(made.strengths[:, 0], strengths / np.median(strengths), atol=0.06)
    new = _visit(make_record, sky_at, 40, strength=1.3, **given)
    sky = skysub.visit_background(new.records, templates=made)
    plain = skysub.visit_background(new.records)
    y, x = np.mgrid[25:2000:50, 25:2048:50]
    for n in (0, 3):
        true = 1.3 * _pattern(n, y, x)
        assert np.std(model_error(sky, n) - true) < 0.4 * np.std(model_error(plain, n) - true)


def test_amplifiers_keep_their_steps_from_visit_to_visit(make_record, sky_at, boxes, model_error):
    steps = np.random.default_rng(6).normal(0, 1.0, (6, 8))
    steps -= steps.mean(axis=1, keepdims=True)
    visits = [_visit(make_record, sky_at, v, numbers=range(4), steps=steps, boxes=boxes) for v in range(1, 7)]
    made = make_templates(visits, TemplatesConfig(frames=0))
    told, deviation = made.detectors[3].steps.expected(880.0)
    np.testing.assert_allclose(told, steps[3], atol=0.15)
    assert np.all(deviation < 0.15)
    # one amplifier without any sky has its step all the same
    y0, y1, x0, x1 = boxes[2]
    gone = lambda x, y: (y >= y0) & (y < y1) & (x >= x0) & (x < x1)  # noqa: E731
    new = [
        make_record(
            n,
            offset=OFFSETS[n],
            steps=steps[n],
            amplifiers=boxes,
            seed=70,
            starved=gone if n == 3 else None,
        )
        for n in range(4)
    ]
    sky = skysub.visit_background(new, templates=made)
    y, x = np.mgrid[25:2000:50, 25:2048:50]
    error = model_error(sky, 3, offset=OFFSETS[3])[gone(x, y)].mean()
    assert error == pytest.approx(steps[3][2], abs=0.3)


def test_few_visits_are_flagged_and_what_cannot_be_done_is_refused(plain):
    few = make_templates(plain[:3])
    assert "3 visits" in few.flags["few_visits"]
    with pytest.raises(TemplatesError, match="1 of 1 visits"):
        make_templates(plain[:1])
    with pytest.raises(TemplatesError, match="more than once"):
        make_templates([plain[0], plain[0]])
    other = TemplateVisit([r.replace(band="z") for r in plain[1].records], plain[1].cells)
    with pytest.raises(TemplatesError, match="'r' and 'z'"):
        make_templates([plain[0], other])
    with pytest.raises(InvalidImageError, match=r"\[1, 2\]"):
        TemplateVisit([plain[0].records[0], plain[1].records[1]], {})
    with pytest.raises(ConfigError, match="frames"):
        TemplatesConfig(frames=-1)
    lost = TemplateVisit([r.replace(place=None) for r in plain[1].records], plain[1].cells)
    assert "visits_left_out" in make_templates([plain[0], lost, plain[2]]).flags


def _pointed(visit, east):
    """The same visit, pointed so many pixels of 1e-6 radian east."""
    records = []
    for record in visit.records:
        angle = 1e-6 * (east + np.tile([0.0, 1023.5, 2047.0], 3))
        directions = np.stack([np.cos(angle), np.sin(angle), np.zeros(9)], axis=1)
        records.append(record.replace(directions=directions))
    return TemplateVisit(records, visit.cells)


def test_visits_that_point_alike_are_flagged(plain):
    config = TemplatesConfig(rounds=1)
    alike = [_pointed(plain[k], east) for k, east in enumerate((0.0, 40.0, -60.0))]
    assert "within some 40 pixels" in make_templates(alike, config).flags["pointings_alike"]
    apart = [_pointed(plain[k], east) for k, east in enumerate((0.0, 1500.0, -900.0))]
    assert "pointings_alike" not in make_templates(apart, config).flags


def test_cells_are_means_of_sky():
    image = make_visit_image((128, 160), visit=1, sources=8, seed=4)
    level = float(np.median(image.image))
    cells = cells_of(image.replace(image=image.image - np.float32(level)))
    assert cells.mean.shape == (4, 5)
    seen = np.isfinite(cells.mean)
    # sigma of 30 e- over the root of some 1,000 pixels
    assert np.nanmedian(cells.error) == pytest.approx(0.95, rel=0.2)
    assert seen.all()
    masked = image.mask.copy()
    masked[:32, :32] |= image.bits("BAD")
    masked[:3, :3] = 0
    assert np.isnan(cells_of(image.replace(mask=masked)).mean[0, 0])
    with pytest.raises(InvalidImageError, match="does not match"):
        skysub.SkyCells(np.zeros((2, 2), np.float32), np.zeros((2, 3), np.float32))


def _layer(shape=(64, 96), rows=32):
    return AmplifierBackground(
        shape=shape,
        amplifiers=amplifier_grid(shape, rows=1, columns=2),
        steps=np.array([1.0, -1.0]),
        step_errors=np.full(2, 0.1),
        rows_per_bin=rows,
        drift=(np.array([0.5, -0.5]), np.array([0.0, 0.0])),
        drift_errors=(np.full(2, 0.1), np.full(2, 0.1)),
    )


def test_what_amplifiers_take_of_a_pattern_is_its_means():
    # 4 where an amplifier has its lower rows, by hand: steps 2 and 0 about their mean of 1, drift of +-2
    pattern = np.zeros((64, 96), np.float32)
    pattern[:32, :48] = 4.0
    taken = pattern_layer(_layer(), pattern)
    assert taken.steps.tolist() == [1.0, -1.0]
    assert taken.drift[0].tolist() == [2.0, -2.0]
    assert taken.drift[1].tolist() == [0.0, 0.0]


def test_a_layer_that_is_put_back_is_in_the_superpixels(make_record):
    record = make_record(0)
    layer = _layer((2000, 2048), 1000)
    with_layer = record.replace(background=dataclasses.replace(record.background, amplifiers=layer))
    back = put_back(with_layer)
    assert back.background.amplifiers is None
    moved = back.background.statistics.mean - record.background.statistics.mean
    # rows 0 to 999 of the left half have 1 + 0.5
    assert moved[2, 3] == pytest.approx(1.5, abs=1e-3)
    assert moved[12, 3] == pytest.approx(0.5, abs=1e-3)
    assert moved[12, 12] == pytest.approx(-1.0, abs=1e-3)
    half = dataclasses.replace(layer, steps=layer.steps / 2)
    assert put_back(with_layer, half).background.amplifiers is half
    np.testing.assert_allclose(layer_means(layer, record.background.grid).mean(), 0, atol=0.02)
    assert put_back(record) is record


def test_templates_know_what_they_do_not_know():
    one = DetectorTemplate(
        constant=1.0, proportional=2e-3, covariance=np.array([[0.04, 0.0], [0.0, 1e-8]]), deviation=0.1
    )
    prior = one.offset_prior(1000.0)
    assert prior.mean == 3.0
    assert prior.deviation == pytest.approx(np.sqrt(0.01 + 0.04 + 0.01))
    assert DetectorTemplate().offset_prior(1000.0) is None
    steps = StepTemplate(
        ((0, 5, 0, 5), (0, 5, 5, 9)),
        np.array([[1.0, 0.0], [-1.0, 1e-3]]),
        np.zeros((2, 2, 2)),
        np.full(2, 0.2),
    )
    values, deviations = steps.expected(500.0)
    assert values.tolist() == [1.0, -0.5]
    assert deviations.tolist() == [0.2, 0.2]
    made = VisitTemplates({0: one}, (1, 2), band="z")
    assert made.of(0, (4, 4)) is one
    assert VisitTemplates({0: dataclasses.replace(one, shape=(5, 5))}, (1,)).of(0, (4, 4)) is None
    assert "band='z'" in repr(made)
