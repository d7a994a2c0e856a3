"""Users that are assigned once, and not in every round, are detected from the exposures."""

import numpy as np
import pandas as pd
import pytest

from hyperzero_torch.live import Aggregator

SHARES = {0: 0.4, 1: 0.3, 2: 0.3}


def hour(rng, place, round_, on):
    ends = np.cumsum(list(SHARES.values()))
    arm = np.minimum(np.searchsorted(ends, place, side="right"), 2)
    users = np.flatnonzero(on)
    exposures = pd.DataFrame({"user": users, "round": round_, "candidate": arm[users]})
    events = pd.DataFrame(
        {
            "user": users,
            "round": round_,
            "metric": "views",
            "value": rng.gamma(1.0, 5.0, len(users)),
        }
    )
    return exposures, events


@pytest.mark.parametrize("apart", [True, False])
def test_users_that_keep_their_arm_are_said_and_not_believed(apart):
    """Rounds that are read one by one, or all together."""
    rng = np.random.default_rng(0)
    place = rng.random(3000)
    sticky, anew = Aggregator(["views"]), Aggregator(["views"])
    for aggregator, is_sticky in ((sticky, True), (anew, False)):
        rng = np.random.default_rng(1)
        frames = [
            hour(rng, place if is_sticky else rng.random(3000), r, rng.random(3000) < 0.6)
            for r in range(4)
        ]
        exposures, events = (pd.concat(part) for part in zip(*frames))
        planned = dict.fromkeys(range(4), SHARES)
        found = {}
        if apart:
            for r, (some_exposures, some_events) in enumerate(frames):
                collected = aggregator.aggregate(
                    some_exposures, some_events, as_of=r + 1, rounds=[r], planned={r: SHARES}
                )
                found |= collected.excluded_rounds
        else:
            found = aggregator.aggregate(
                exposures, events, as_of=4, planned=planned
            ).excluded_rounds
        assert sorted(found) == ([1, 2, 3] if is_sticky else [])
        assert all("users keep their arm" in reason for reason in found.values())


def test_few_users_and_splits_that_are_not_tested_say_nothing():
    rng = np.random.default_rng(2)
    place, on = rng.random(300), np.ones(300, dtype=bool)
    frames = [hour(rng, place, r, on) for r in range(2)]
    exposures, events = (pd.concat(part) for part in zip(*frames))
    shares = dict.fromkeys(range(2), SHARES)
    assert (
        not Aggregator(["views"])
        .aggregate(exposures, events, as_of=2, planned=shares)
        .excluded_rounds
    )
    place, on = rng.random(3000), np.ones(3000, dtype=bool)
    frames = [hour(rng, place, r, on) for r in range(2)]
    exposures, events = (pd.concat(part) for part in zip(*frames))
    assert not Aggregator(["views"]).aggregate(exposures, events, as_of=2).excluded_rounds
