"""Readings that are missing: of a metric, of some arms, or of everything.

Readings are late in every study. How late is learned from the study's own rounds: the delay,
counted in plans, within which 99 % of its earlier rounds reported a metric for the first time. A
round that is older and has not reported is silent; so is one whose rows have a count of 0, whatever
its age.
Two silent rounds in a row are an alarm, or more where the metric has been silent for longer twice
before, as conversions may be every night.

All functions read the latest week of hours. They compute no statistics of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .history import CONTROL, History
from .round_table import RoundTable

# Rounds that are looked at, and those in which an arm has to be silent for an alarm about it.
_WINDOW, _ARM_WINDOW = 168, 48
# The delay that is taken as normal before so many rounds have shown one.
_DEFAULT_DELAY, _MIN_ROUNDS = 4, 5
# The same for single arms, of which some are later than the first of their round.
_DEFAULT_ARM_DELAY = 6
_QUANTILE = 0.99
_MIN_SILENT = 2
# An arm of fewer expected users may have none by chance: exp(-20) for a Poisson count.
_MIN_USERS = 20.0
_MAX_LISTED = 12  # candidates in a sentence


@dataclass(frozen=True)
class Silence:
    """Rounds without readings, the latest that could be expected.

    Args:
        metric: its index; None where no metric was reported.
        candidates: the arms that are silent while others report; empty where all are.
        since: the first silent round.
        last: the latest.
        num_rounds: how many of the rounds between are silent.
        never: whether nothing was ever reported of it.
    """

    metric: int | None
    candidates: tuple[int, ...]
    since: int
    last: int
    num_rounds: int
    never: bool


class Lateness(NamedTuple):
    """Delays that are normal, in plans: of each metric's first reading of a round ``(metrics,)``,
    of the first of any metric, and of single arms ``(metrics,)``."""

    metrics: NDArray[np.int64]
    any: int
    arms: NDArray[np.int64]


def lateness(history: History) -> Lateness:
    """The delays within which nearly all of the study's rounds reported."""
    width = len(history.metrics)
    first: list[list[int]] = [[] for _ in range(width)]
    together: list[int] = []
    arms = np.full(width, -1)
    for _, table in _recent(history):
        late = np.where(table.delay >= 0, table.delay, np.iinfo(np.int64).max).min(axis=0)
        has = (table.delay >= 0).any(axis=0)
        for m in np.flatnonzero(has).tolist():
            first[m].append(int(late[m]))
        if has.any():
            together.append(int(late.min()))
        arms = np.maximum(arms, table.delay.max(axis=0, initial=-1))
    any_ = _normal(together, _DEFAULT_DELAY)
    metrics = np.array([_normal(delays, any_, _DEFAULT_DELAY) for delays in first], dtype=np.int64)
    arms = np.maximum(arms, metrics)
    if len(together) < 2 * _MIN_ROUNDS:
        arms = np.maximum(arms, _DEFAULT_ARM_DELAY)
    return Lateness(metrics, any_, arms)


def silences(history: History, is_running: bool = False) -> list[Silence]:
    """What is missing now.

    Args:
        history: the study's facts.
        is_running: whether the round of the last plan is still under way; False when the next plan
            is made.
    """
    recent = _recent(history)
    if not recent:
        return []
    normal = lateness(history)
    ages = [len(history.plans) - 1 - t.index - int(is_running) for _, t in recent]
    whole = _everything(recent, ages, normal)
    if whole is not None:
        return [whole]
    by_metric = [_metric(recent, ages, normal, m) for m in range(len(history.metrics))]
    silent = [s for s in by_metric if s is not None]
    skipped = [s.metric for s in silent]
    return silent + [s for s in _arms(history, recent, ages, normal) if s.metric not in skipped]


def num_silent_rounds(history: History) -> int:
    """Rounds in a row without any reading, where they are an alarm; 0 otherwise."""
    whole = (s for s in silences(history) if s.metric is None and not s.candidates)
    return next((s.num_rounds for s in whole), 0)


def _recent(history: History) -> list[tuple[int, RoundTable]]:
    """The latest rounds that keep their readings, ascending."""
    # No more than a compaction leaves, so that it changes nothing.
    window = min(_WINDOW, history.config.get("block_rounds") or _WINDOW)
    return [(r, history.tables[r]) for r in sorted(history.tables)[-window:]]


def _normal(delays: Sequence[int], *least: int) -> int:
    """The delay that nearly all kept; where there are few, the largest of them and of ``least``."""
    if len(delays) >= _MIN_ROUNDS:
        return int(np.quantile(delays, _QUANTILE, method="higher"))
    return max([*delays, *least])


def _everything(
    recent: list[tuple[int, RoundTable]], ages: list[int], normal: Lateness
) -> Silence | None:
    states = [
        True if t.reported.any() else False if age >= normal.any else None
        for (_, t), age in zip(recent, ages)
    ]
    return _stretch([r for r, _ in recent], states, None)


def _metric(
    recent: list[tuple[int, RoundTable]], ages: list[int], normal: Lateness, m: int
) -> Silence | None:
    """A metric that no arm reports."""
    states: list[bool | None] = []
    for (_, table), age in zip(recent, ages):
        reported = table.reported
        # Rows of no users beside others with users: nothing is awaited any more.
        is_empty = ((table.count[:, m] == 0) & reported.any(axis=1)).any()
        late = age >= normal.metrics[m] and (reported.any() or age >= normal.any)
        states.append(True if reported[:, m].any() else False if is_empty or late else None)
    return _stretch([r for r, _ in recent], states, m)


def _stretch(
    rounds: Sequence[int], states: Sequence[bool | None], metric: int | None
) -> Silence | None:
    """The silent rounds at the end, where they are more than usual; None leaves a round open."""
    runs: list[list[int]] = [[]]
    for round_, state in zip(rounds, states):
        if state is False:
            runs[-1].append(round_)
        elif state and runs[-1]:
            runs.append([])
    usual = sorted((len(run) for run in runs[:-1]), reverse=True)
    usual_gap = usual[1] if len(usual) > 1 else 0
    run = runs[-1]
    if len(run) < max(_MIN_SILENT, usual_gap + 1):
        return None
    return Silence(metric, (), run[0], run[-1], len(run), not any(states))


def _arms(
    history: History, recent: list[tuple[int, RoundTable]], ages: list[int], normal: Lateness
) -> list[Silence]:
    """Arms that do not report a metric which others report, in the last rounds that serve them."""
    shape = (history.num_candidates, len(history.metrics))
    is_closed = np.zeros(shape, dtype=bool)
    num = np.zeros(shape, dtype=np.int64)
    first, last = np.full(shape, -1), np.full(shape, -1)
    has_reported = np.zeros(shape, dtype=bool)
    for (round_, table), age in reversed(list(zip(recent, ages))[-_ARM_WINDOW:]):
        c, reported = table.candidates, table.reported
        share = np.array(history.plans[round_].shares)[:, np.newaxis]
        reporting = np.where(reported, share, 0.0).sum(axis=0)
        users = np.nan_to_num(table.counted("count")).sum(axis=0)
        expected = share * users / np.where(reporting > 0, reporting, np.inf)
        late = (table.count == 0) | (age >= normal.arms)
        silent = ~reported & (expected >= _MIN_USERS) & late & ~is_closed[c]
        num[c] += silent
        first[c] = np.where(silent, round_, first[c])
        last[c] = np.where(silent & (last[c] < 0), round_, last[c])
        is_closed[c] |= reported
        has_reported[c] |= reported
    alarm = num >= _MIN_SILENT
    alarm[sorted(history.status.stopped)] = False
    facts = (num, first, last, has_reported)
    measured = has_reported.any(axis=0)
    nowhere = alarm[:, measured].all(axis=1) & measured.any()  # silent in every metric: said once
    groups: list[Silence] = _grouped(None, np.flatnonzero(nowhere), *facts)
    for m in range(shape[1]):
        groups += _grouped(m, np.flatnonzero(alarm[:, m] & ~nowhere), *facts)
    return groups


def _grouped(
    metric: int | None,
    ids: NDArray[np.int64],
    num: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    has_reported: NDArray[np.bool_],
) -> list[Silence]:
    """Silent arms as one statement; the control has its own."""
    columns = slice(None) if metric is None else slice(metric, metric + 1)
    return [
        Silence(
            metric=metric,
            candidates=tuple(group.tolist()),
            since=int(first[group, columns].min()),
            last=int(last[group, columns].max()),
            num_rounds=int(num[group, columns].max()),
            never=not has_reported[group, columns].any(),
        )
        for group in (ids[ids == CONTROL], ids[ids != CONTROL])
        if len(group)
    ]


def describe(silence: Silence, metrics: Sequence[str]) -> str:
    """What is missing, in a sentence without an end."""
    since, last, num = silence.since, silence.last, silence.num_rounds
    name = "any metric" if silence.metric is None else f"metric {metrics[silence.metric]!r}"
    if silence.metric is None and not silence.candidates:
        which = "no reading has arrived yet" if silence.never else "no readings have arrived"
        return f"{which} of the last {num} rounds that were due ({since} to {last})"
    if not silence.candidates:
        what = "was never reported" if silence.never else "is no longer reported"
        return f"{name} {what} by any arm: rounds {since} to {last}, {num} of them due"
    if silence.candidates == (CONTROL,):
        return (
            f"the control does not report {name} while other arms do, since round {since}; "
            "without it no arm has a delta"
        )
    listed = list(silence.candidates[:_MAX_LISTED])
    more = len(silence.candidates) - len(listed)
    which = f"{listed}{f' and {more} more' if more else ''}"
    return f"candidates {which} do not report {name} while others do, since round {since}"
