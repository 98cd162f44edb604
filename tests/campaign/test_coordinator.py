"""How the coordinator hands out units."""

import pytest

from skysub.campaign.coordinator import units_of_task


@pytest.mark.parametrize(
    ("seconds", "slots", "left", "units"),
    [
        # short ones share a tenth of a second, 32 at most
        (0.02, 2, 1000, 5),
        (0.001, 2, 1000, 32),
        # 40 a second are fewer than 50 tasks
        (1.0, 40, 10**6, 1),
        # 1000 a second are 20 for each of 50 tasks
        (1.0, 1000, 10**6, 20),
        (2.0, 1000, 10**6, 10),
        (1.0, 4000, 10**7, 32),
        # near the end all workers must have some: eight tasks for each of 1000 slots
        (1.0, 1000, 24_000, 3),
        (1.0, 1000, 7_999, 1),
        (0.0, 0, 10, 32),
    ],
)
def test_units_share_a_task_where_they_are_short_or_many(seconds, slots, left, units):
    assert units_of_task(seconds, slots, left) == units
