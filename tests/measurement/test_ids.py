"""Numbers of sources: by hand, unique, sorted, and refused where they do not fit."""

import datetime as dt

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skysub.errors import ConfigError, SourceIdError
from skysub.measurement.ids import SourceIds
from skysub.measurement.visit_numbers import day_of_visit


def test_bits_by_hand():
    ids = SourceIds(release=3)
    numbers = ids.of(5, 7, 2)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [(3 << 59) + (5 << 27) + (7 << 19), (3 << 59) + (5 << 27) + (7 << 19) + 1]
    # 2024-11-24 is day 9094 since 2000-01-01
    first = SourceIds().first(2024112400123, 94)
    assert first == ((1 << 31) | (9094 << 17) | 123) << 27 | 94 << 19
    assert SourceIds(release=15).of(2**31 - 1, 255, 524_288)[-1] < 2**63


visits = st.one_of(
    st.integers(0, 2**31 - 1),
    st.tuples(st.dates(dt.date(2000, 1, 1), dt.date(2044, 11, 8)), st.integers(0, 99_999)).map(
        lambda pair: int(pair[0].strftime("%Y%m%d")) * 100_000 + pair[1]
    ),
)
keys = st.tuples(st.integers(0, 15), visits, st.integers(0, 255))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(keys, keys, st.integers(0, 2**19 - 1), st.integers(0, 2**19 - 1))
def test_no_two_sources_share_a_number(one, other, k, m):
    numbers = []
    for (release, visit, detector), counter in ((one, k), (other, m)):
        number = SourceIds(release=release).first(visit, detector) + counter
        assert 0 <= number < 2**63
        assert SourceIds(release=release).taken_apart(number) == (release, visit, detector, counter)
        numbers.append(number)
    assert (numbers[0] == numbers[1]) == ((one, k) == (other, m))


def test_what_does_not_fit_is_refused():
    ids = SourceIds()
    for visit in (-1, 2**31, 2024133100001, 2050010100001, 10**17):
        with pytest.raises(SourceIdError, match=f"visit {visit}: "):
            ids.first(visit, 1)
    with pytest.raises(SourceIdError, match=r"visit 5 detector 256: .* 0 to 255"):
        ids.first(5, 256)
    with pytest.raises(SourceIdError, match="524289 sources do not fit"):
        ids.of(5, 7, 524_289)
    assert SourceIds(detector_bits=10, counter_bits=17).first(5, 1023) > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"release": 16}, "does not fit into 4 bits"),
        ({"release": -1}, "whole numbers"),
        ({"release": True}, "whole numbers"),
        ({"counter_bits": 20}, "add up to 31"),
    ],
)
def test_layouts_that_are_none(settings, words):
    with pytest.raises(ConfigError, match=words):
        SourceIds(**settings)


def test_the_day_of_a_visit():
    assert day_of_visit(2024112400123) == 20241124
    assert day_of_visit(2024133100123) is None
    assert day_of_visit(5) is None
