"""A saved state is checked like a message of readings: whether a study could have written it."""

from __future__ import annotations

import torch

from ..errors import ConfigError, InputError
from ..problem.parameters import Choice
from ..problem.space import SearchSpace
from ..problem.written import space_of
from . import goals
from .history import History
from .journal import CandidateAdded, Decision, Planned, StudyHeader
from .journal.base import kind_of

_MOST_ROUNDS = 2**63  # databases store 8 bytes
# Shares were normalised in other ways by earlier versions; these are their roundings.
_ROUNDING = 1e-9


def check(header: StudyHeader, history: History) -> None:
    """Refuse thetas outside every space that the study ever had, shares and rounds that are none.

    Raises:
        ConfigError: it is refused; the message names the first candidate or round.
    """
    spaces = _spaces(header, history)
    theta = history.theta
    inside = torch.zeros(len(theta), dtype=torch.bool)
    for space in spaces:
        inside |= space.contains(theta)
    if not inside.all():
        candidate = int((~inside).nonzero()[0])
        raise _damaged(
            f"candidate {candidate} has theta {theta[candidate].tolist()}, which lies outside the "
            "space of the study"
        )
    for entry in history.candidates:
        row = theta[entry.candidate : entry.candidate + 1]
        fits = [space for space in spaces if space.contains(row).all()]
        if all(dict(entry.parameters) != space.to_parameters(row)[0] for space in fits):
            raise _damaged(
                f"candidate {entry.candidate} has parameters {dict(entry.parameters)!r:.120}, "
                f"which are not those of its theta {row[0].tolist()}"
            )
    records: list[CandidateAdded | Decision] = [*history.candidates, *history.decisions]
    for record in records:
        if type(record.round) is not int or not 0 <= record.round < _MOST_ROUNDS:
            raise _damaged(f"a record of kind {kind_of(record)} has the round {record.round!r:.40}")
    for plan in history.plans.values():
        reason = _flaw(plan)
        if reason is not None:
            raise _damaged(f"the plan of round {plan.round} {reason}")


def _damaged(reason: str) -> ConfigError:
    return ConfigError(
        f"the state is damaged: {reason}; nothing was changed. Load an undamaged copy of what "
        "tuner.state_dict() returned"
    )


def _spaces(header: StudyHeader, history: History) -> list[SearchSpace]:
    """The spaces that held, each with all options that a Choice ever had at their places."""
    options = goals.options_of(header, history.goals)
    specs = [header.problem, *(change.after.problem for change in history.goals)]
    spaces = []
    for spec in specs:
        space = space_of(spec)
        parameters = [
            Choice(p.name, options[p.name]) if isinstance(p, Choice) else p
            for p in space.parameters
        ]
        if len(parameters) != history.num_params:
            raise InputError(f"a space of {len(parameters)} parameters, not {history.num_params}")
        spaces.append(SearchSpace(parameters, space.constraints))
    return spaces


def _flaw(plan: Planned) -> str | None:
    """Why a plan cannot be served; None where it can."""
    if not all(0 <= share <= 1 for share in plan.shares):
        return f"has shares outside 0 to 1: {plan.shares[:8]}"
    if abs(sum(plan.shares) - 1) > _ROUNDING:
        return f"has shares that add up to {sum(plan.shares)!r}, not 1"
    if any(slots < 0 for slots in plan.slots):
        return f"has slots below 0: {plan.slots[:8]}"
    if any(a >= b for a, b in zip(plan.candidates, plan.candidates[1:])):
        return f"has arms that do not ascend: {plan.candidates[:8]}"
    return None
