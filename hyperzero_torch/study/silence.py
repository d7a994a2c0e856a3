"""Readings that are missing: of a metric, of some arms, or of everything.

A round that has not reported is silent once it is later than usual (``lateness.py``), or where its
rows have a count of 0. Two silent rounds in a row are an alarm, or more where the metric has been
silent for longer twice before, as conversions may be every night.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .history import CONTROL, History
from .lateness import Lateness, age, lateness, recent
from .round_table import RoundTable

# Rounds in which an arm has to be silent for an alarm about it.
_ARM_WINDOW = 48
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


@dataclass(frozen=True)
class Awaited:
    """What the newest round with readings still lacks, late or not.

    Args:
        round: its number.
        num_arms: arms that must have users by now, as the others' readings tell.
        num_silent: those of them without readings of some metric that others report.
        metrics: names of the metrics that no arm reports.
        comes_later: whether the arms of an earlier round have all reported, so that this one's may.
    """

    round: int
    num_arms: int
    num_silent: int
    metrics: tuple[str, ...]
    comes_later: bool


def awaited(history: History) -> Awaited | None:
    """What the newest round with readings still lacks; None where there is no such round."""
    reporting = [(r, table) for r, table in reversed(recent(history)) if table.arrivals.any]
    if not reporting:
        return None
    round_, table = reporting[0]
    num_arms, num_silent = _silent_arms(history, round_, table)
    return Awaited(
        round=round_,
        num_arms=num_arms,
        num_silent=num_silent,
        metrics=tuple(
            name for m, name in enumerate(history.metrics) if not table.reported[:, m].any()
        ),
        comes_later=any(_silent_arms(history, *earlier)[1] == 0 for earlier in reporting[1:]),
    )


def _silent_arms(history: History, round_: int, table: RoundTable) -> tuple[int, int]:
    """Arms of a round that must have users, and those of them without some metric of the others."""
    is_expected = _expected(history, round_, table) >= _MIN_USERS
    is_stopped = np.isin(table.candidates, sorted(history.status.stopped))
    is_expected &= (table.count != 0) & ~is_stopped[:, np.newaxis]
    is_silent = is_expected & ~table.reported
    num_arms = int((is_expected | table.reported).any(axis=1).sum())
    return num_arms, int(is_silent.any(axis=1).sum())


def silences(history: History, is_running: bool = False) -> list[Silence]:
    """What is missing now.

    Args:
        history: the study's facts.
        is_running: whether the round of the last plan is still under way; False when the next plan
            is made.
    """
    rounds = recent(history)
    if not rounds:
        return []
    normal = lateness(history)
    ages = [age(history, table, is_running) for _, table in rounds]
    whole = _everything(rounds, ages, normal)
    if whole is not None:
        return [whole]
    by_metric = [_metric(rounds, ages, normal, m) for m in range(len(history.metrics))]
    silent = [s for s in by_metric if s is not None]
    skipped = [s.metric for s in silent]
    return silent + [s for s in _arms(history, rounds, ages, normal) if s.metric not in skipped]


def num_silent_rounds(history: History) -> int:
    """Rounds in a row without any reading, where they are an alarm; 0 otherwise."""
    whole = (s for s in silences(history) if s.metric is None and not s.candidates)
    return next((s.num_rounds for s in whole), 0)


def _everything(
    rounds: list[tuple[int, RoundTable]], ages: list[int], normal: Lateness
) -> Silence | None:
    states = [
        True if table.arrivals.any else False if is_of_age else None
        for (_, table), is_of_age in zip(rounds, [a >= normal.any for a in ages])
    ]
    return _stretch([r for r, _ in rounds], states, None)


def _metric(
    rounds: list[tuple[int, RoundTable]], ages: list[int], normal: Lateness, m: int
) -> Silence | None:
    """A metric that no arm reports."""
    states: list[bool | None] = []
    for (_, table), num_later in zip(rounds, ages):
        arrived = table.arrivals
        late = num_later >= normal.metrics[m] and (arrived.any or num_later >= normal.any)
        # Rows of no users beside others with users: nothing is awaited any more.
        is_silent = bool(arrived.is_empty[m]) or bool(late)
        states.append(True if arrived.reported[m] else False if is_silent else None)
    return _stretch([r for r, _ in rounds], states, m)


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
    history: History, rounds: list[tuple[int, RoundTable]], ages: list[int], normal: Lateness
) -> list[Silence]:
    """Arms that do not report a metric which others report, in the last rounds that serve them."""
    shape = (history.num_candidates, len(history.metrics))
    is_closed = np.zeros(shape, dtype=bool)
    num = np.zeros(shape, dtype=np.int64)
    first, last = np.full(shape, -1), np.full(shape, -1)
    has_reported = np.zeros(shape, dtype=bool)
    for (round_, table), num_later in reversed(list(zip(rounds, ages))[-_ARM_WINDOW:]):
        c, reported = table.candidates, table.reported
        if table.arrivals.by_all.all():
            is_closed[c] = has_reported[c] = True
            continue
        expected = _expected(history, round_, table)
        late = (table.count == 0) | normal.arms_are_overdue(table, num_later)
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


def _expected(history: History, round_: int, table: RoundTable) -> NDArray[np.float64]:
    """Users that each arm should have of each metric, ``(arms, metrics)``, by those that report."""
    share = np.array(history.plans[round_].shares)[:, np.newaxis]
    reporting = np.where(table.reported, share, 0.0).sum(axis=0)
    users = np.nan_to_num(table.counted("count")).sum(axis=0)
    expected: NDArray[np.float64] = share * users / np.where(reporting > 0, reporting, np.inf)
    return expected


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
