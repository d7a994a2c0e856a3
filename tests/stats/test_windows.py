"""Windows of hours: against a loop in NumPy, free of a rhythm, unbiased where hours are thin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperzero_torch.stats import moments, windows
from hyperzero_torch.stats.windows import REQUIRED, Sums
from hyperzero_torch.study.evidence.pooling import Pooling, pool
from hyperzero_torch.study.round_table import RoundTable

laws = settings(deadline=None, max_examples=60, derandomize=True)
PRECISION = Pooling("precision", 24, calibrate=True)


def sums_of(information):
    """Hours with this information and users 1, 2, 3, ...; ``(rows, metrics)``."""
    info = torch.tensor(information, dtype=torch.float64)
    ones = torch.ones_like(info)
    users = torch.arange(1, len(info) + 1, dtype=torch.float64).unsqueeze(-1) * ones
    # level = var = info: then the information of a sum is the sum.
    return Sums(users, info, info, info, info, info, info, 2 * info)


def by_loop(candidates, information):
    """The rows of each candidate's windows, for one metric: greedy, the rest joins the last."""
    found = {}
    for c in sorted(set(candidates)):
        complete, pending, total = [], [], 0.0
        for row in [i for i, who in enumerate(candidates) if who == c]:
            pending.append(row)
            total += information[row]
            if total >= REQUIRED:
                complete.append(pending)
                pending, total = [], 0.0
        if complete:
            complete[-1] += pending
        found[c] = complete
    return found


@laws
@given(st.data())
def test_windows_are_those_of_a_loop(data):
    hours, arms, metrics = (data.draw(st.integers(1, most)) for most in (12, 4, 2))
    served = [
        data.draw(st.lists(st.booleans(), min_size=arms, max_size=arms)) for _ in range(hours)
    ]
    candidates = [c for row in served for c in range(arms) if row[c]]
    ends = np.cumsum([0, *(sum(row) for row in served)]).tolist()
    rounds = [torch.arange(a, b) for a, b in itertools.pairwise(ends)]
    value = st.sampled_from([0.0, 3.0, 20.0, 26.0, REQUIRED, 400.0])
    row = st.lists(value, min_size=metrics, max_size=metrics)
    information = [data.draw(row) for _ in candidates]
    sums = sums_of(information) if candidates else Sums(*(torch.zeros(0, metrics),) * 8)
    last, pooled = windows.assign(torch.tensor(candidates, dtype=torch.long), rounds, sums)
    for metric in range(metrics):
        want = by_loop(candidates, [i[metric] for i in information])
        in_window = set()
        for rows in (rows for of in want.values() for rows in of):
            in_window |= set(rows)
            # The last row of the complete window, not of the hours that joined it later.
            total, end = 0.0, None
            for r in rows:
                total += information[r][metric]
                end = r if end is None and total >= REQUIRED else end
            assert {int(last[r, metric]) for r in rows} == {end}
            users = sum(float(sums.users[r, metric]) for r in rows)
            assert float(pooled.users[end, metric]) == users
            assert all(float(pooled.users[r, metric]) == 0 for r in rows if r != end)
        for r in set(range(len(candidates))) - in_window:
            assert int(last[r, metric]) == -1
            assert float(pooled.level[r, metric]) == information[r][metric]


def tables(count, mean, var):
    """Rounds with cells ``(hours, arms)`` or ``(hours, arms, metrics)``."""
    count, mean, var = (a[..., None] if a.ndim == 2 else a for a in (count, mean, var))
    hours, arms, metrics = mean.shape
    rounds = []
    for hour in range(hours):
        table = RoundTable(range(arms), metrics)
        table.count, table.mean, table.var = count[hour], mean[hour], var[hour]
        table.revision[:] = 0
        rounds.append((hour, table))
    return rounds


def test_a_rhythm_cancels_whatever_the_shares():
    """Levels that differ by a factor of 8 and shares that move against them: the lift is exact."""
    hours = np.arange(48)
    level = 0.001 * np.exp(np.log(8) / 2 * np.sin(2 * np.pi * hours / 24))
    share = 0.5 + 0.4 * np.cos(2 * np.pi * hours / 24)
    count = np.stack([5000 * (1 - share), 5000 * share], 1).round()
    mean = np.stack([level, 1.25 * level], 1)
    block, deltas = pool(tables(count, mean, 1e-12 + 0 * mean), PRECISION, 1)
    assert float(block.state.mean[1, 0]) == pytest.approx(0.25, rel=1e-6)
    thin, deltas = pool(tables(count, mean, mean), PRECISION, 1)
    assert len(deltas.round) < 24  # hours were pooled
    assert float(thin.state.mean[1, 0]) == pytest.approx(0.225, abs=0.002)  # 1.25 (1 - 1/50) - 1


def test_hours_with_enough_conversions_are_their_own_windows():
    rng = np.random.default_rng(0)
    count = np.full((30, 3), 40_000.0)
    mean = rng.normal(0.5, 0.002, (30, 3))
    block, deltas = pool(tables(count, mean, 0.25 + 0 * mean), PRECISION, 1)
    assert deltas.round.tolist() == sorted([*range(30)] * 2)
    assert not any(bool(field.any()) for field in block.waiting)


def test_blocks_that_do_not_suffice_wait_for_each_other():
    """Half a conversion an hour: a block of a day has no delta, its sums are kept."""
    rng = np.random.default_rng(1)
    count = np.full((200, 2), 5000.0)
    mean = rng.poisson(0.5, (200, 2)) / count
    cells = tables(count, mean, mean)
    whole, _ = pool(cells, PRECISION, 1)
    parts = [pool(cells[a : a + 40], PRECISION, 1)[0] for a in range(0, 200, 40)]
    assert all(float(part.state.weight[1, 0]) == 0 for part in parts)
    total = parts[0].waiting
    for part in parts[1:]:
        total = total.add(part.waiting)
    assert float(total.information[1, 0]) >= REQUIRED
    assert float(whole.state.weight[1, 0]) > 0
    assert float(total.delta().mean[1, 0]) == pytest.approx(float(whole.state.mean[1, 0]), abs=1e-9)


@pytest.mark.parametrize("conversions", [0.5, 1.5, 3.0])
def test_a_few_conversions_an_hour_are_unbiased_and_covered(conversions):
    """1.5 an hour once gave -75 +- 17 % where nothing differs, and no interval covered 0."""
    rng = np.random.default_rng(2)
    num, hours, users = 400, 168, 4000  # each study is a metric of its own
    mean = rng.binomial(users, conversions / users, (hours, 3, num)) / users
    var = mean * (1 - mean) * users / (users - 1)
    count = np.full_like(mean, users)
    state = pool(tables(count, mean, var), PRECISION, num)[0].state
    weight, delta, spread = (field[1].numpy() for field in state)
    assert (weight > 0).all()  # a week is enough for all three
    std = np.sqrt(spread) / weight
    assert abs(delta.mean()) < (0.1 + 4 / num**0.5) * delta.std()
    covered = (abs(delta) < 1.96 * std).mean()
    assert covered == pytest.approx(0.95, abs=0.02 + 4 * (0.95 * 0.05 / num) ** 0.5)


def test_a_mean_near_zero_has_no_delta_before_it_is_known():
    """Net revenue of 1 +- 60 per user: an hour of 2000 users has a control of 1 +- 1.3."""
    rng = np.random.default_rng(3)
    count = np.full((168, 2), 2000.0)
    mean = rng.normal(1.0, 60 / 2000**0.5, (168, 2))
    block, deltas = pool(tables(count, mean, np.full((168, 2), 3600.0)), PRECISION, 1)
    assert len(deltas.round) <= 3
    assert abs(float(block.state.mean[1, 0])) < 1.0
    day, _ = pool(tables(count[:24], mean[:24], np.full((24, 2), 3600.0)), PRECISION, 1)
    assert float(day.state.weight[1, 0]) == 0


def test_sums_of_hours_without_a_side_are_empty():
    count = torch.tensor([[5.0], [1.0], [0.0], [torch.nan]], dtype=torch.float64)
    one = torch.ones_like(count)
    side, full = moments.Moments(count, one, one), moments.Moments(5 * one, one, one)
    for sums in (windows.hours(side, full, one, one), windows.hours(full, side, one, one)):
        assert sums.level[:, 0].tolist() == [2.5, 0, 0, 0]
        assert all(bool(field.isfinite().all()) for field in sums)
