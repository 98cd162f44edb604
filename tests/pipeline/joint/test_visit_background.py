"""One sky per visit: what it finds, what it refuses to take for sky, and what bad input does to it."""

import numpy as np
import pytest

import skysub
from skysub.errors import ConfigError, InvalidImageError
from skysub.pipeline.visit_background import VisitBackgroundConfig, visit_background

OFFSETS = (1.8, -2.5, 0.4, 3.1, -1.2, -3.4, 2.2, 0.3, -0.7)


@pytest.fixture(scope="module")
def quiet(make_record):
    return [make_record(n) for n in range(9)]


@pytest.fixture(scope="module")
def quiet_sky(quiet):
    return visit_background(quiet)


def _bytes(sky):
    parts = [sky.coefficients.tobytes()]
    for layers in (sky.backgrounds, sky.detection):
        for number in sorted(layers):
            parts += [layers[number].coefficients.tobytes(), layers[number].covariance.tobytes()]
            parts += [layers[number].evaluate(y=slice(100, 140)).tobytes()]
    return b"".join(parts)


def test_a_smooth_sky_is_followed_and_known(quiet_sky, model_error):
    assert quiet_sky.mode == "joint"
    assert quiet_sky.choice.terms == ()
    assert quiet_sky.joint == tuple(range(9))
    assert dict(quiet_sky.flags) == {}
    errors = {n: model_error(quiet_sky, n) for n in range(9)}
    together = np.stack(list(errors.values()))
    # 28 coefficients of each detector alone would leave 0.3 sqrt(28 / 256) = 0.1
    assert np.sqrt(np.mean(together**2)) < 0.05
    pulls = np.stack([errors[n] / quiet_sky.backgrounds[n].uncertainty()[25::50, 25::50] for n in range(9)])
    assert 0.4 < np.sqrt(np.mean(pulls**2)) < 1.6
    # across the gap between neighbours the error does not jump
    assert abs(errors[0][:, -1].mean() - errors[1][:, 0].mean()) < 0.01
    assert abs(errors[4][-1].mean() - errors[7][0].mean()) < 0.01


def test_bits_do_not_depend_on_the_order_of_detectors(quiet, quiet_sky):
    shuffled = [quiet[k] for k in (4, 8, 1, 0, 7, 2, 6, 3, 5)]
    assert _bytes(visit_background(shuffled)) == _bytes(quiet_sky)


def test_offsets_are_found_where_there_are_some(make_record, model_error):
    sky = visit_background([make_record(n, offset=OFFSETS[n]) for n in range(9)])
    assert sky.choice.terms == ("offset",)
    assert max(abs(model_error(sky, n, offset=OFFSETS[n]).mean()) for n in range(9)) < 0.1
    found = np.array([sky.offsets[n][0] for n in range(9)])
    assert np.std(found - OFFSETS) < 0.15
    assert "offset" in sky.choice.why


def test_amplifier_steps_are_found_and_kept_apart_from_structure(make_record, boxes, model_error):
    rng = np.random.default_rng(3)
    steps = rng.standard_normal((9, 8))
    offsets = np.array(OFFSETS)
    records = [make_record(n, offset=offsets[n], steps=steps[n], amplifiers=boxes) for n in range(9)]
    sky = visit_background(records)
    assert "amplifier" in sky.choice.terms
    for n in (0, 5):
        error = model_error(sky, n, offset=offsets[n])
        for (y0, y1, x0, x1), step in zip(boxes, steps[n], strict=True):
            assert error[y0 // 50 : y1 // 50, x0 // 50 + 1 : x1 // 50].mean() == pytest.approx(step, abs=0.3)
        window = sky.backgrounds[n].evaluate(y=slice(900, 1100), x=slice(500, 530))
        assert np.array_equal(window, sky.backgrounds[n].evaluate()[900:1100, 500:530])
    assert sky.backgrounds[0].uncertainty().shape == (2000, 2048)

    def rings(x, y):
        return 880 + 5.0 * (np.hypot(x - 3100, y - 2000) % 1100 < 300)

    # rings have edges everywhere, and boundaries where there are none explain them as well
    ghosts = visit_background([make_record(n, sky=rings, amplifiers=boxes) for n in range(9)])
    assert "amplifier" not in ghosts.choice.terms
    assert "sky_structure" in ghosts.flags


def _galaxy(radius, brightness, *, x=1024.0, y=1000.0):
    return lambda u, v: brightness * np.exp(-1.678 * np.hypot(u - x, v - y) / radius)


def test_a_galaxy_in_a_corner_keeps_its_light(make_record, model_error):
    light = _galaxy(150.0, 60.0, x=150.0, y=100.0)
    inside = lambda x, y: light(x, y) > 1.0  # noqa: E731
    records = [make_record(n) for n in range(1, 9)]
    records.append(make_record(0, light=lambda x, y: np.where(inside(x, y), 0, light(x, y)), starved=inside))
    sky = visit_background(records)
    (y, x) = np.meshgrid(np.arange(25, 2000, 50), np.arange(25, 2048, 50), indexing="ij")
    near = np.hypot(x - 150, y - 100) < 600
    taken = (model_error(sky, 0)[near]).sum() / light(x, y)[near].sum()
    assert abs(taken) < 0.05


def _filled(make_record, *, offset=0.0, **changes):
    """A detector that a galaxy fills: 8 e- of it wherever the mask leaves anything."""
    dry = lambda x, y: np.hypot(x - 1024, y - 1000) < 800  # noqa: E731
    outside = np.zeros((16, 16), bool)
    outside[5:9, 5:9] = True
    return make_record(
        4, light=lambda x, y: 8 + 0 * (x + y), starved=dry, offset=offset, extrapolated=outside, **changes
    )


@pytest.mark.parametrize("offsets", [False, True])
def test_a_detector_that_a_galaxy_fills_has_no_vote(make_record, model_error, offsets):
    own = (0.6, -0.5, 0.4, 0.3, -0.6, -0.4, 0.8, 0.3, -0.7) if offsets else (0.0,) * 9
    records = [make_record(n, offset=own[n]) for n in range(9) if n != 4]
    sky = visit_background([*records, _filled(make_record, offset=own[4])])
    assert sky.votes.suspect == (4,)
    assert sky.votes.lost == (4,)
    assert "no_vote" in sky.detector_flags[4]
    error = model_error(sky, 4, offset=own[4])
    assert abs(error.mean()) < 1.5
    assert abs(error.mean()) < 2 * sky.backgrounds[4].uncertainty().mean()
    assert max(abs(model_error(sky, n, offset=own[n]).mean()) for n in (1, 3, 5, 7)) < 0.2


def test_what_a_suspect_with_a_vote_does_not_know_is_in_its_uncertainty(make_record, model_error):
    records = [make_record(n, offset=2 * OFFSETS[n]) for n in range(9) if n != 4]
    sky = visit_background([*records, _filled(make_record)])
    assert sky.votes.suspect == (4,)
    assert "level_uncertain" in sky.detector_flags[4] or "no_vote" in sky.detector_flags[4]
    pull = model_error(sky, 4).mean() / sky.backgrounds[4].uncertainty().mean()
    assert abs(pull) < 2.2


def test_normal_detectors_keep_their_votes(make_record):
    # half of the sky of one detector is hidden in each of many visits, and there is nothing wrong with it
    dry = lambda x, y: y + 0 * x < 900  # noqa: E731
    for seed in range(50):
        offsets = 2 * np.random.default_rng(seed).standard_normal(9)
        records = [
            make_record(n, offset=offsets[n], seed=seed, starved=dry if n == 4 else None, superpixel=256)
            for n in range(9)
        ]
        sky = visit_background(records, VisitBackgroundConfig(detection=False))
        assert sky.votes.suspect == (4,)
        assert sky.votes.lost == ()


def test_an_offset_far_out_is_no_galaxy_where_most_of_the_sky_is_seen(make_record, model_error):
    # a tenth of the superpixels is dry and a corner is extrapolated, but the detector's offset is its own
    dry = lambda x, y: np.hypot(x - 100, y - 100) < 700  # noqa: E731
    outside = np.zeros((16, 16), bool)
    outside[:2, :2] = True
    own = (0.6, -0.5, 0.4, 0.3, 9.0, -0.4, 0.8, 0.3, -0.7)
    records = [make_record(n, offset=own[n]) for n in range(9) if n != 4]
    records.append(make_record(4, offset=own[4], starved=dry, extrapolated=outside))
    sky = visit_background(records)
    assert sky.votes.suspect == (4,)
    assert sky.votes.lost == ()
    assert abs(model_error(sky, 4, offset=own[4]).mean()) < 0.5


def test_a_model_that_underfits_does_not_drag_the_level(make_record, model_error):
    def waves(x, y):
        return 880 + 3 * np.sin(2 * np.pi * x / 1700) * np.cos(2 * np.pi * y / 1900)

    sky = visit_background([make_record(n, sky=waves) for n in range(9)])
    level = np.mean([model_error(sky, n, sky=waves).mean() for n in range(9)])
    assert abs(level) < 0.1
    pulls = np.concatenate(
        [
            (model_error(sky, n, sky=waves) / sky.backgrounds[n].uncertainty()[25::50, 25::50]).ravel()
            for n in range(9)
        ]
    )
    assert np.sqrt(np.mean(pulls**2)) < 1.5
    finer = [np.std(model_error(sky, n, sky=waves, which="detection")) for n in range(9)]
    coarse = [np.std(model_error(sky, n, sky=waves)) for n in range(9)]
    assert np.mean(finer) < 0.5 * np.mean(coarse)


def test_one_detector_far_off_is_one_detector_far_off(make_record, model_error):
    sky = visit_background([make_record(n, offset=100.0 if n == 2 else 0.0) for n in range(9)])
    assert abs(model_error(sky, 2, offset=100.0).mean()) < 0.3
    assert max(abs(model_error(sky, n).mean()) for n in range(9) if n != 2) < 0.1
    assert sky.votes.apart == (2,) or "offset" in sky.choice.terms


def test_level_corrections_and_faint_light_are_pooled(make_record, model_error, faint):
    corrections = (0.1, 0.12, 0.11, 0.1, 0.35, 0.1, 0.09, 0.11, 0.1)
    records = []
    for n in range(9):
        record = make_record(n, correction=corrections[n])
        light = faint(0.5 + 0.01 * n, 0.2, "counted")
        records.append(record.replace(background=_with(record.background, faint_light=light if n else None)))
    sky = visit_background(records)
    assert sky.faint_light.value == pytest.approx(0.545)
    assert 0.19 < sky.faint_light.uncertainty <= 0.2
    assert abs(np.mean([model_error(sky, n).mean() for n in range(9)]) - 0.1) < 0.02
    alone = sky.backgrounds[3].sky_alone()
    apart = sky.backgrounds[3].evaluate(y=slice(0, 5)) - alone.evaluate(y=slice(0, 5))
    np.testing.assert_allclose(apart, 0.545, atol=2e-4)


def _with(background, **changes):
    import dataclasses

    return dataclasses.replace(background, **changes)


def test_bad_detectors_keep_their_own_sky_and_are_named(make_record, quiet):
    dead = quiet[0].background
    empty = dead.statistics.mean * np.float32(np.nan)
    records = [
        *quiet[:5],
        quiet[5].replace(place=None),
        quiet[6].replace(unit="adu"),
        quiet[7].replace(background=_with(dead, statistics=_with(dead.statistics, mean=empty))),
        make_record(8, superpixel=64),
    ]
    sky = visit_background(records, expected=range(11))
    assert sky.joint == (0, 1, 2, 3, 4, 8)
    assert "no_place" in sky.detector_flags[5]
    assert "other_unit" in sky.detector_flags[6]
    assert "no_usable_superpixels" in sky.detector_flags[7]
    assert sky.backgrounds[6] is quiet[6].background
    assert "9, 10" in sky.flags["detectors_missing"]
    assert "5, 6, 7" in sky.flags["detectors_apart"]


def test_few_detectors_or_settings_leave_each_its_own(quiet):
    for records, config in (
        (quiet[:1], None),
        (quiet, VisitBackgroundConfig(mode="per_detector")),
        ([each.replace(place=None) for each in quiet], None),
    ):
        sky = visit_background(records, config)
        assert sky.mode == "per_detector"
        assert sky.backgrounds[0] is quiet[0].background
        assert "per_detector" in sky.flags
    assert visit_background(quiet[:2]).mode == "joint"


def test_what_cannot_be_a_visit_is_refused(quiet):
    with pytest.raises(InvalidImageError, match="without any"):
        visit_background([])
    with pytest.raises(InvalidImageError, match="detector 3"):
        visit_background([*quiet, quiet[3]])
    with pytest.raises(InvalidImageError, match="one visit"):
        visit_background([quiet[0], quiet[1].replace(visit=2)])
    with pytest.raises(InvalidImageError, match="amplifier"):
        quiet[0].replace(amplifiers=((0, 3000, 0, 10),))
    with pytest.raises(InvalidImageError, match="place"):
        quiet[0].replace(place=np.zeros(3))
    with pytest.raises(ConfigError, match="mode"):
        VisitBackgroundConfig(mode="jiont")
    with pytest.raises(ConfigError, match="terms"):
        VisitBackgroundConfig(terms=("ofset",))
    with pytest.raises(ConfigError, match="knots"):
        VisitBackgroundConfig(knots=0)


def test_names_are_public(quiet_sky):
    assert isinstance(quiet_sky, skysub.VisitBackground)
    assert skysub.visit_background is visit_background
    assert "joint=9" in repr(quiet_sky)
    assert not hasattr(quiet_sky.summary(), "backgrounds")


def test_a_marker_holds_what_a_visit_and_its_detectors_keep(quiet, quiet_sky):
    from skysub.campaign.store.objects import object_of, text_of
    from skysub.pipeline.joint.record import DetectorRecord, SkyFacts

    back = object_of(text_of(quiet_sky.summary()))
    assert back.coefficients.tobytes() == quiet_sky.coefficients.tobytes()
    assert back.choice.why == quiet_sky.choice.why
    assert back.offsets[4] == quiet_sky.offsets[4]
    kept = SkyFacts(**{name: getattr(quiet[2], name) for name in SkyFacts.__dataclass_fields__})
    again = DetectorRecord.of(object_of(text_of(kept)), quiet[2].background)
    assert np.array_equal(again.place, quiet[2].place)
