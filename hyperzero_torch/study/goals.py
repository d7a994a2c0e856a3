"""The goals of a study: what it maximises, within which guardrails and bounds; and their changes.

Evidence is kept by metric and does not depend on goals. A change of goals is an entry of the
journal (``journal/goals_trace.py``) that names what held before and what holds from then on.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import HyperZeroError, JournalCorruptError, ProblemError, StudyMismatchError
from ..problem import written
from ..problem.difference import changed_guardrails, difference
from ..problem.options import placed_options, with_options
from ..problem.problem import Problem
from ..problem.space import Choice
from .acceptance import check_reason
from .cube import coordinates
from .history import CONTROL, History
from .journal import Decision, StudyHeader, unpack_array
from .journal.goals_trace import Goals, GoalsChanged
from .journal.missing_trace import Withdrawn
from .journal.switch_trace import StoppedByHand
from .journal.trace import RolledBack, Stopped

#: What to do about a problem that is not the study's.
ADVICE = (
    "To change goals on purpose: tuner.change_goals(problem, reason=...), "
    "hz.Tuner.resume(..., problem=problem, change_goals='the reason'), or "
    "'hyperzero goals change --config FILE --reason ...'"
)


class Period(NamedTuple):
    """Goals and how long they held: in rounds planned after ``after``, up to ``last``.

    ``after`` is None where no round was planned before; ``last`` is None for the present goals, and
    for others under which no round was planned. ``change`` put them in force, ``reason`` is why;
    both are None for the first goals of a study.
    """

    goals: Goals
    after: int | None
    last: int | None
    change: GoalsChanged | None
    reason: str | None
    is_present: bool


def author(by: str | None) -> str:
    """Who changes goals: the name that is given, or the user of this process."""
    if by is not None:
        if not isinstance(by, str) or not by.strip():
            raise ProblemError(f"'by' is the name of a person or a job, got {by!r}")
        return by.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a process without a user
        return "unknown"


def latest(header: StudyHeader, changes: Sequence[GoalsChanged]) -> Mapping[str, Any]:
    """The specification of the goals in force."""
    return changes[-1].after.problem if changes else header.problem


def periods(header: StudyHeader, history: History) -> list[Period]:
    """Which goals held when, oldest first; the last are in force."""
    changes = [d for d in history.decisions if isinstance(d.trace, GoalsChanged)]
    first = history.goals[0].before if history.goals else _of_header(header)
    starts = [change.last_round for change in history.goals]
    result = [Period(first, None, next(iter(starts), None), None, None, not starts)]
    for i, (decision, change) in enumerate(zip(changes, history.goals), 1):
        is_present = i == len(starts)
        last = None if is_present else starts[i]
        goals, after = change.after, change.last_round
        result.append(Period(goals, after, last, change, decision.reason, is_present))
    return result


def opened(problem: Problem, header: StudyHeader, changes: Sequence[GoalsChanged]) -> Problem:
    """The problem as the study uses it: options of a Choice have the study's indices.

    Raises:
        StudyMismatchError: these are not the goals in force; the message names what differs.
    """
    check_same(latest(header, changes), problem, header.study)
    return with_options(problem, options_of(header, changes))


def check_same(spec: Mapping[str, Any], problem: Problem, study: str) -> None:
    """Refuse a problem that is not the one in force.

    Raises:
        StudyMismatchError: the message names what differs, and what to do.
    """
    differs = difference(spec, problem.spec())
    if not differs:
        return
    advice = ADVICE if not differs.fixed else "Nothing of this can change in a running study"
    raise StudyMismatchError(
        f"study {study!r} was made for another problem, or its goals differ: "
        + "; ".join((*differs.fixed, *differs.goals))
        + f". Nothing was changed. {advice}"
    )


def options_of(header: StudyHeader, changes: Sequence[GoalsChanged]) -> dict[str, tuple[Any, ...]]:
    """All options that each Choice ever had, in the order of their indices."""
    parameters = header.problem.get("parameters", ())
    options = {p["name"]: tuple(p["options"]) for p in parameters if p["kind"] == "choice"}
    return options | (dict(changes[-1].options) if changes else {})


def stored(header: StudyHeader, changes: Sequence[GoalsChanged]) -> Problem:
    """The problem in force, from the journal alone.

    Raises:
        ProblemError: it has a callable, which the journal does not hold.
    """
    goals = changes[-1].after if changes else _of_header(header)
    try:
        return written.restored_alone(
            goals.problem, goals.texts, bool(changes) or "texts" in header.problem
        )
    except ProblemError as error:
        raise ProblemError(
            f"study {header.study!r} cannot be resumed without its problem: {error}; give it: "
            f"hz.Tuner.resume(journal, {header.study!r}, problem=problem)"
        ) from None


def before_change(header: StudyHeader, changes: Sequence[GoalsChanged], lender: Problem) -> Problem:
    """The problem in force, restored from the journal.

    Args:
        header: of the study.
        changes: of its goals.
        lender: another problem, whose callables are taken where they are the same.
    Raises:
        StudyMismatchError: it has a callable that ``lender`` does not have.
    """
    goals = changes[-1].after if changes else _of_header(header)
    try:
        return written.restored(goals.problem, goals.texts, [lender])
    except ProblemError as error:
        raise StudyMismatchError(
            f"study {header.study!r} has goals that the journal alone cannot restore: {error}. "
            "Resume it with its own problem, then call tuner.change_goals(problem, reason=...)"
        ) from None


def at(changes: Sequence[GoalsChanged], later: Sequence[GoalsChanged], today: Problem) -> Problem:
    """The problem that held after the first changes, before the ``later`` ones.

    Args:
        changes: of goals, up to that time.
        later: of goals, since.
        today: the problem in force, whose callables stand in for those of that time.
    Raises:
        ProblemError: it had a callable that the present problem does not have.
    """
    if not later:
        return today
    goals = later[0].before
    problem = written.restored(goals.problem, goals.texts, [today])
    return with_options(problem, changes[-1].options if changes else {})


def change(
    history: History, today: Problem, problem: Problem, reason: str, by: str
) -> Decision | None:
    """The entry that puts other goals in force; None where nothing differs.

    Args:
        history: of the study.
        today: the problem in force, as the study uses it.
        problem: the new one, as it is written.
        reason: why.
        by: who.
    Raises:
        RoundError: no reason is given.
        StudyMismatchError: what cannot change in a study differs.
        ProblemError: a goal newly rests on a metric of which there are no readings.
    """
    check_reason(reason)
    differs = difference(today.spec(), problem.spec())
    if not differs:
        return None
    if differs.fixed:
        raise StudyMismatchError(
            "goals can be changed, these cannot: " + "; ".join(differs.fixed) + ". Nothing was "
            "changed"
        )
    _check_collected(history, today, problem)
    options = {
        old.name: placed_options(old, new.served)
        for old, new in zip(today.space.parameters, problem.space.parameters)
        if isinstance(old, Choice) and isinstance(new, Choice)
    }
    becomes = with_options(problem, options)
    inside = becomes.space.contains(history.theta).tolist()
    trace = GoalsChanged(
        before=_goals(today),
        after=_goals(becomes),
        differences=differs.goals,
        by=by,
        last_round=history.last_round,
        outside=tuple(c for c, is_inside in enumerate(inside) if not is_inside and c != CONTROL),
        judged_anew=_judged_anew(history, today, becomes),
        options=options,
        cube=coordinates(today.space, becomes.space),
    )
    return Decision.of(history.last_round or 0, reason, trace)


def followed(
    problem: Problem, history: History, study: str, offered: Problem | None = None
) -> Problem:
    """The problem after another process, or this one, has changed the goals.

    Args:
        problem: that was in force.
        history: with the change.
        study: its name.
        offered: by this process, where it made the change.
    Raises:
        StudyMismatchError: the new goals have a callable, which the journal does not hold.
    """
    change = history.goals[-1]
    options = {p.name: tuple(p.options) for p in problem.space.parameters if isinstance(p, Choice)}
    options |= change.options
    if offered is not None and not difference(change.after.problem, offered.spec()):
        return with_options(offered, options)
    try:
        becomes = written.restored(change.after.problem, change.after.texts, [problem])
    except HyperZeroError as error:
        raise StudyMismatchError(
            f"the goals of study {study!r} were changed by {change.by} "
            f"({'; '.join(change.differences)}): {error}. Open the study again with that problem"
        ) from None
    return with_options(becomes, options)


def _of_header(header: StudyHeader) -> Goals:
    try:
        return Goals(problem=dict(header.problem), texts=written.stored_texts(header.problem))
    except (KeyError, TypeError, ValueError) as error:
        raise JournalCorruptError(
            f"the header of study {header.study!r} describes no problem ({error}); restore the "
            "journal from a backup"
        ) from None


def _goals(problem: Problem) -> Goals:
    return Goals(problem=problem.spec(), texts=written.texts_of(problem))


def _check_collected(history: History, today: Problem, problem: Problem) -> None:
    """Refuse goals on a metric that the study lists, and that nobody has ever reported."""
    new = (problem.used_metrics & ~today.used_metrics).nonzero().flatten().tolist()
    reported = {m for table in history.tables.values() for m in range(len(history.metrics))
                if (table.revision[:, m] >= 0).any()}  # fmt: skip
    if not reported and not history.compacted:
        return  # nothing was reported at all
    for block in history.compacted:
        users = unpack_array(block.evidence["users"]).sum(axis=0)
        reported |= {m for m, num in enumerate(users.tolist()) if num > 0}
    missing = [history.metrics[m] for m in new if m not in reported]
    if missing:
        there = [name for m, name in enumerate(history.metrics) if m in reported]
        raise ProblemError(
            f"a goal cannot rest on {missing}: no reading of these metrics was ever recorded in "
            f"this study, which has readings of {there}. Record readings of them first, in rounds "
            "to come; then change the goals"
        )


def _judged_anew(history: History, today: Problem, problem: Problem) -> tuple[int, ...]:
    """Stopped candidates whose guardrail is gone or has changed."""
    gone = changed_guardrails(today.spec(), problem.spec())
    status = history.status
    stopped_by: dict[int, Stopped | None] = {}
    for decision in history.decisions:
        match decision.trace:
            case Stopped(candidates=candidates) as trace:
                stopped_by.update(dict.fromkeys(candidates, trace))
            case (
                Withdrawn(candidates=candidates)
                | RolledBack(candidates=candidates)
                | StoppedByHand(candidates=candidates)
            ):
                stopped_by.update(dict.fromkeys(candidates, None))  # no guardrail stopped these
    return tuple(
        sorted(
            c
            for c, trace in stopped_by.items()
            if trace is not None and c in status.stopped and trace.constraint in gone
        )
    )
