"""Rounds that are no longer planned are noticed by the clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperzero_torch.study.planning import Planning

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def times(hours):
    return {i: (BEGIN + timedelta(hours=h)).isoformat() for i, h in enumerate(hours)}


@pytest.mark.parametrize(
    ("hours", "later", "state"),
    [
        (range(30), 2.9, "PASS"),
        (range(30), 3.1, "ACT"),
        ([0], 2.9, "PASS"),
        ([0], 3.1, "ACT"),
        (range(0, 720, 24), 71, "PASS"),  # a round a day, though 24 are configured
        (range(0, 720, 24), 73, "ACT"),
        ([i / 3600 for i in range(50)], 2.9, "PASS"),  # a simulation by the second
        (range(30), -5, "PASS"),  # the clocks of two machines
    ],
)
def test_three_missing_rounds_are_for_a_person(hours, later, state):
    planning = Planning.of(times(hours), 24)
    card = planning.card(BEGIN + timedelta(hours=list(hours)[-1] + later))
    assert card.state == state
    assert bool(card.advice) == (state == "ACT")


def test_without_times_nothing_is_claimed():
    assert Planning.of({}, 24) is None


def test_a_time_without_a_zone_is_utc():
    assert Planning.of({0: "2026-01-01T00:00:00"}, 24).last == BEGIN


@given(
    st.lists(st.floats(0, 1e4), min_size=1, max_size=60),
    st.floats(0.1, 1440),
    st.floats(-1e4, 1e4),
)
def test_late_is_three_intervals_whatever_the_times(hours, rounds_per_day, later):
    planning = Planning.of(times(hours), rounds_per_day)
    assert planning.interval >= 86_400 / rounds_per_day
    now = planning.last + timedelta(hours=later)
    age = (now - planning.last).total_seconds()
    assert (planning.card(now).state == "ACT") == (age > 3 * planning.interval)
