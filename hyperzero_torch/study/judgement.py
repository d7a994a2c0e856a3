"""New readings against those of the same and of recent rounds: which are set aside, and why.

The checks are pure functions in ``readings/plausibility.py`` (absurd values), ``readings/units.py``
(variances and means in another unit) and ``readings/guard_levels.py`` (levels far from a
guardrail's bound). Here they get their cells from the history, and what they find becomes decisions
of the journal, one per metric and reason, beside the message itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..problem.problem import Problem
from .history import CONTROL, History
from .journal import Decision, ReadingsReceived
from .journal.base import values_of
from .journal.quarantine_trace import Quarantined
from .journal.trace import Remark
from .quarantine import UNITS, Cell
from .readings import guard_levels, plausibility, units, words
from .readings.plausibility import Cells
from .readings.units import Sample

# Rounds before those of a message that its readings are compared with, and about so many cells.
_MOST_ROUNDS, _FEWEST_ROUNDS, _MOST_CELLS = 24, 3, 20_000
# Arms of a round, the first of its plan, by which units are judged.
_ARMS_FOR_UNITS = 256
# The factor by which the usual variance or mean changes where its unit does.
_BREAK = 5.0
# The latest rounds by which units are judged, the fewest first: a unit may have changed lately.
_SPANS = (1, 2, 4, _MOST_ROUNDS)


class _Window(NamedTuple):
    """Readings of recent rounds and of a message, one metric: a row per cell with users.

    ``is_new`` came with the message; ``is_doubted`` was set aside for the metric's unit. What was
    set aside as absurd is not among them.
    """

    round: NDArray[Any]
    candidate: NDArray[Any]
    place: NDArray[Any]
    share: NDArray[Any]
    users: NDArray[Any]
    mean: NDArray[Any]
    var: NDArray[Any]
    revision: NDArray[Any]
    is_new: NDArray[Any]
    is_doubted: NDArray[Any]

    def where(self, mask: NDArray[Any]) -> _Window:
        """The rows of the mask."""
        return _Window(*(field[mask] for field in self))


def judge(history: History, problem: Problem, received: ReadingsReceived) -> list[Decision]:
    """Decisions that set readings aside, and remarks on units that look wrong.

    Args:
        history: before the message.
        problem: of the study, for its guardrails on levels.
        received: the message.
    """
    columns = {name: np.array(values) for name, values in values_of(received).items()}
    # Of several revisions of a row the last in the message is the highest.
    decisions: list[Decision] = []
    rounds = _rounds(history, columns)
    for metric in np.unique(columns["metric"]).tolist():
        window = _window(history, rounds, columns, metric)
        decisions += _judge_metric(history, problem, metric, window)
    return decisions


def _judge_metric(
    history: History, problem: Problem, metric: int, window: _Window
) -> Iterator[Decision]:
    believed = window.where(~window.is_doubted)
    verdict = plausibility.judge(
        Cells(
            *(believed.round, believed.share, believed.users),
            *(believed.mean, believed.var, believed.is_new),
        )
    )
    name = history.metrics[metric]
    for code in dict.fromkeys(verdict[verdict != ""].tolist()):
        rows = believed.where(verdict == code)
        reason = words.absurd(name, code, rows.round, rows.candidate, rows.users, rows.mean)
        others = believed.where((verdict == "") & (believed.users > 1))
        reason += words.cause(code, rows.users, rows.mean, rows.var, others.users, others.mean)
        yield _set_aside(history, metric, code, reason, rows, is_unit=False)
    absurd = np.zeros(len(window.round), dtype=bool)
    absurd[np.flatnonzero(~window.is_doubted)[verdict != ""]] = True
    yield from _judge_unit(history, metric, window.where(~absurd))
    yield from _judge_levels(history, problem, metric, window.where(~absurd))


def _judge_unit(history: History, metric: int, window: _Window) -> Iterator[Decision]:
    few = window.where(window.place < _ARMS_FOR_UNITS)
    few = few.where(few.round >= _since_break(few))
    latest = np.unique(few.round)[::-1]
    if not few.is_new.any():
        return
    is_remarked = False
    accepted = {code for m, code in history.status.accepted_units if m == metric}
    spans = [s for s in _SPANS if s < len(latest)]
    first, sure = 0, None
    for span in [*spans, len(latest)]:
        sample = _sample(few.where(few.round >= latest[span - 1]))
        unit = units.wrong_unit(sample)
        if sure is not None and (unit.code, unit.sure) != (sure.code, True):
            break
        if not unit.code or unit.code in accepted:
            continue
        if unit.sure:
            first, sure = latest[span - 1], unit  # as far back as the same unit is sure
        elif not is_remarked:
            reason = words.unit(history.metrics[metric], unit)
            yield from _remark_once(history, metric, unit.code, reason)
            is_remarked = True
    if sure is not None:
        rows = window.where((window.round >= first) & ~window.is_doubted)
        if len(rows.round):
            reason = words.unit(history.metrics[metric], sure)
            yield _set_aside(history, metric, sure.code, reason, rows, is_unit=True)
        return
    percent = units.PERCENT + "ages"
    if percent not in accepted and units.is_percentage(sample):
        reason = words.percentages(history.metrics[metric])
        yield from _remark_once(history, metric, percent, reason)


def _judge_levels(
    history: History, problem: Problem, metric: int, window: _Window
) -> Iterator[Decision]:
    """A control that breaks a guardrail on levels tenfold, where no base level was given."""
    control = window.where(window.is_new & (window.candidate == CONTROL))
    if not len(control.round) or problem.base_levels is not None:
        return
    code = guard_levels.FAR
    for bound in guard_levels.bounds(problem, history.metrics[metric]):
        level = float(np.median(control.mean))
        if guard_levels.is_broken_by_far(bound, level):
            if (metric, code) in history.status.accepted_units:
                return
            rounds = np.unique(control.round)
            rows = window.where(np.isin(window.round, rounds) & ~window.is_doubted)
            reason = words.far_level(history.metrics[metric], bound, level)
            if len(rows.round):
                yield _set_aside(history, metric, code, reason, rows, is_unit=True)
            return
        if guard_levels.is_kept_by_a_hundred(bound, level):
            reason = words.far_inside(history.metrics[metric], bound, level)
            yield from _remark_once(history, metric, code, reason)


def _since_break(window: _Window) -> int:
    """The round since which means and variances have had one unit, by the median of their arms.

    From one round to the next a daily rhythm changes them little.
    """
    usable = window.where((window.var > 0) & (window.mean != 0))
    rounds, slot = np.unique(usable.round, return_inverse=True)
    if len(rounds) < 2:
        return 0
    broken = np.zeros(len(rounds), dtype=bool)
    for values in (usable.var, np.abs(usable.mean)):
        broken[1:] |= np.abs(np.diff(_medians(np.log(values), slot))) > np.log(_BREAK)
    return int(rounds[np.flatnonzero(broken)[-1]]) if broken.any() else 0


def _medians(values: NDArray[Any], slot: NDArray[Any]) -> NDArray[Any]:
    """The median of each slot's values; calls of ``np.median`` would be much of a small hour."""
    ordered = values[np.lexsort((values, slot))]
    size = np.bincount(slot)
    start = np.cumsum(size) - size
    middle: NDArray[Any] = (ordered[start + (size - 1) // 2] + ordered[start + size // 2]) / 2
    return middle


def _sample(window: _Window) -> Sample:
    slot = np.unique(window.round, return_inverse=True)[1]
    arm = np.unique(window.candidate, return_inverse=True)[1]
    return Sample(slot, arm, window.users, window.mean, window.var)


def _set_aside(
    history: History, metric: int, code: str, reason: str, rows: _Window, is_unit: bool
) -> Decision:
    trace = Quarantined(
        metric=metric,
        code=code,
        is_unit=is_unit,
        rounds=rows.round.tolist(),
        candidates=rows.candidate.tolist(),
        revisions=rows.revision.tolist(),
    )
    return Decision.of(history.last_round or 0, reason, trace)


def _remark_once(history: History, metric: int, code: str, reason: str) -> Iterator[Decision]:
    """A remark, unless the journal has it for this metric."""
    facts = {"metric": history.metrics[metric], "code": code}
    same = Remark(facts=facts)
    if not any(d.kind == UNITS and d.trace == same for d in history.decisions):
        yield Decision(history.last_round or 0, UNITS, reason, facts)


def _rounds(history: History, columns: Mapping[str, NDArray[Any]]) -> list[int]:
    """Rounds of a message, and recent ones with readings that count, ascending."""
    of_message = np.unique(columns["round"]).tolist()
    arms = max(len(history.tables[r].candidates) for r in of_message)
    most = min(_MOST_ROUNDS, max(_FEWEST_ROUNDS, _MOST_CELLS // arms))
    excluded = history.status.excluded_rounds
    recent = (
        r
        for r in sorted(history.tables, reverse=True)
        if r not in excluded and (history.tables[r].revision >= 0).any()
    )
    return sorted({*of_message, *islice(recent, most)})


def _window(
    history: History, rounds: list[int], columns: Mapping[str, NDArray[Any]], metric: int
) -> _Window:
    parts = []
    of_metric = columns["metric"] == metric
    for round_ in rounds:
        table, plan = history.tables[round_], history.plans[round_]
        fields = {n: getattr(table, n)[:, metric].copy() for n in ("count", "mean", "var")}
        revision = table.revision[:, metric].copy()
        is_new = np.zeros(len(revision), dtype=bool)
        rows = np.flatnonzero(of_metric & (columns["round"] == round_))
        if len(rows):
            at = [table.row[c] for c in columns["candidate"][rows].tolist()]
            for name, values in fields.items():
                values[at] = columns[name][rows]
            revision[at], is_new[at] = columns["revision"][rows], True
        doubted = table.set_aside[:, metric] & ~is_new
        absurd = np.zeros_like(doubted)
        for i in np.flatnonzero(doubted).tolist():
            doubt = history.quarantined[Cell(round_, int(table.candidates[i]), metric)]
            absurd[i] = not doubt.is_unit
        use = (revision >= 0) & (fields["count"] > 0) & ~absurd
        window = _Window(
            np.full(len(use), round_, dtype=np.int64),
            table.candidates,
            np.arange(len(use)),
            np.array(plan.shares, dtype=np.float64) * plan.trace.experiment_share,
            fields["count"],
            fields["mean"],
            fields["var"],
            revision,
            is_new,
            doubted,
        )
        parts.append(window.where(use))
    return _Window(*(np.concatenate(field) for field in zip(*parts)))
