"""Exposures go through a plan in order, and not all at once."""

import random

from skysub.campaign.records import Exposure
from skysub.campaign.sorting import SortedExposures


def exposure(visit, detector, path):
    return Exposure(
        visit=visit,
        detector=detector,
        band="r",
        exposure_time=None,
        unit="adu",
        path=path,
        size=1,
        mtime_ns=2,
        shape=(3, 4),
        source=0,
        known=(("visit", visit), ("band", "ü")),
    )


def test_exposures_come_by_visit_and_detector_and_equal_ones_as_they_were_added():
    places = [(visit, detector) for visit in (3, 2**40, 1) for detector in (10, 9, 0)]
    given = [exposure(*place, path=f"{turn}.fits") for turn in range(3) for place in places]
    random.Random(1).shuffle(given)
    kept = SortedExposures()
    for each in given:
        kept.add(each)
    expected = sorted(given, key=lambda each: (each.visit, each.detector))
    assert list(kept) == expected
    # once more, and after another
    kept.add(exposure(0, 0, "late.fits"))
    assert len(kept) == 28
    assert next(each.path for each in kept) == "late.fits"
    assert list(kept)[1:] == expected
