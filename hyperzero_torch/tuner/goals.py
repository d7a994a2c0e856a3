"""Other goals for a running study, and what follows from them on the evidence that there is.

The change and the stops that follow from it are appended together. Candidates that were stopped for
a guardrail which is gone or has changed are judged by the test that every round makes
(``guardrails.py``), with all their evidence and the new guardrails.

What the test promises: the bounds of a metric's delta hold at all looks together, whatever
threshold they are compared with. So moving a threshold spends nothing. ``harm_alpha`` is shared by
the guardrails in force; each time their number or their metrics change, it counts anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..runtime.randomness import random
from ..study import goals
from ..study.config import TunerConfig
from ..study.history import CONTROL, History, history_of
from ..study.journal import Decision, Entry, Journal, StudyHeader
from ..study.journal.goals_trace import GOALS, GoalsChanged
from ..study.journal.trace import Stopped
from ..study.study import Study
from ..surrogate.foreign import ForeignSurrogate
from ..transfer.alignment import align
from ..transfer.journaled import recorded
from .beliefs import Belief, believe, no_belief
from .context import RoundContext
from .fit_cache import FitCache
from .guardrails import harm_stops
from .model import Fitted, ModelState, update_model
from .recommend import Recommendation, recommend


@dataclass(frozen=True)
class GoalsEffect:
    """What differs between the goals, and what follows at once.

    Args:
        changed: False where nothing differs; then nothing was journaled.
        differences: in sentences.
        let_back: candidates that compete again: their guardrail is gone or has changed and their
            evidence breaks none of the new ones, or the new bounds hold them.
        stopped: candidates whose evidence breaks one of the new guardrails, with the sentence.
        outside: candidates that newly lie outside the bounds.
        no_longer_feasible: candidates whose P(feasible) reached ``min_prob_feasible`` before, and
            does not any more.
        newly_feasible: the reverse.
        before: the recommendation under the earlier goals; None before the first plan.
        after: the recommendation from here on.
    """

    changed: bool
    differences: tuple[str, ...] = ()
    let_back: tuple[int, ...] = ()
    stopped: tuple[tuple[int, str], ...] = ()
    outside: tuple[int, ...] = ()
    no_longer_feasible: tuple[int, ...] = ()
    newly_feasible: tuple[int, ...] = ()
    before: Recommendation | None = None
    after: Recommendation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def goals_before(journal: Journal, header: StudyHeader, problem: Problem) -> Problem:
    """The problem of a study as its journal has it, with callables of ``problem`` where it is used.

    Raises:
        StudyMismatchError: a callable is neither in the journal nor in ``problem``.
    """
    history = history_of(header)
    history.extend(journal.read(header.study))
    return goals.before_change(header, history.goals, problem)


def stored_problem(journal: Journal, header: StudyHeader) -> Problem:
    """The problem of a study from its journal alone.

    Raises:
        ProblemError: it has a callable, which the journal does not hold.
    """
    # SQLAlchemy is imported where a journal needs it.
    from ..study.journal.kinds import has_decisions
    from ..study.journal.sql import SqlJournal

    # The study reads its journal next, and checks it: a long one is read once where that will do.
    if isinstance(journal, SqlJournal) and not has_decisions(journal, header.study, GOALS):
        return goals.stored(header, [])
    entries = journal.read(header.study)
    traces = (e.trace for e in entries if isinstance(e, Decision) and e.kind == GOALS)
    return goals.stored(header, [trace for trace in traces if isinstance(trace, GoalsChanged)])


def change_goals(
    study: Study,
    problem: Problem,
    reason: str,
    by: str | None,
    dry_run: bool,
    device: torch.device,
    cache: FitCache,
    surrogate: ForeignSurrogate | None = None,
    broken: str | None = None,
) -> GoalsEffect:
    """Put other goals in force; see ``Tuner.change_goals``."""
    who = goals.author(by)

    def follow(decision: Decision, history: History) -> tuple[Sequence[Entry], GoalsEffect]:
        today, config = study.problem, study.config
        after = history.branch()
        after.extend([decision])
        becomes = goals.followed(today, after, study.name, problem)
        for source in recorded(history):
            align(source, becomes)  # refused before anything is written
        # What is fitted for goals that are not in force yet must not be found again.
        scratch = FitCache(dict(cache.blocks), {}, {}, {})
        state = update_model(becomes, config, after, device, scratch, surrogate, broken)
        stops = harm_stops(state, RoundContext(config, after, history.last_round or 0, study.seed))
        after.extend(stops)
        before = (today, config, history, device, cache)
        state_before = update_model(*before, surrogate, broken)
        sides = [
            _Side(h, s, config, _belief(h, s, config, study.seed, device))
            for h, s in ((history, state_before), (after, state))
        ]
        return [] if dry_run else [decision, *stops], _effect(sides[0], sides[1], stops)

    effect = study.change_goals(problem, reason, who, follow)
    return GoalsEffect(changed=False) if effect is None else effect


class _Side(NamedTuple):
    """A study under the goals before, or under those after."""

    history: History
    state: ModelState
    config: TunerConfig
    belief: Belief | None

    @property
    def recommendation(self) -> Recommendation | None:
        """None before the first plan."""
        history, plan = self.history, self.history.last_plan
        if plan is None or self.belief is None:
            return None
        stopped = history.status.stopped
        return recommend(self.state, self.config, self.belief, "lcb", plan.shares, stopped)

    @property
    def feasible(self) -> Tensor:
        """Candidates with an estimate whose P(feasible) is high enough, bool ``(candidates,)``."""
        if self.belief is None:
            return torch.zeros(self.history.num_candidates, dtype=torch.bool)
        is_likely = self.belief.prob_feasible >= self.config.min_prob_feasible
        return self.belief.mean.isfinite() & is_likely & (torch.arange(len(is_likely)) != CONTROL)


def _effect(before: _Side, after: _Side, stops: Sequence[Decision]) -> GoalsEffect:
    was, becomes = before.history.status, after.history.status
    harmed = [
        (candidate, stop.reason)
        for stop in stops
        if isinstance(stop.trace, Stopped)
        for candidate in stop.trace.candidates
    ]
    return GoalsEffect(
        changed=True,
        differences=after.history.goals[-1].differences,
        let_back=tuple(sorted(was.stopped - becomes.stopped)),
        stopped=tuple(harmed),
        outside=tuple(sorted(becomes.outside - was.outside)),
        no_longer_feasible=_ids(before.feasible & ~after.feasible),
        newly_feasible=_ids(after.feasible & ~before.feasible),
        before=before.recommendation,
        after=after.recommendation,
    )


def _ids(chosen: Tensor) -> tuple[int, ...]:
    return tuple(chosen.nonzero().flatten().tolist())


def _belief(
    history: History, state: ModelState, config: TunerConfig, seed: int, device: torch.device
) -> Belief | None:
    if history.last_plan is None:
        return None
    if not isinstance(state, Fitted):
        return no_belief(state.problem, state.bucket)
    generator = random(seed, history.num_messages, "believe", device)
    problem = state.problem.to(device)
    return believe(problem, config, state.bucket, state.posterior, generator, state.fit_set)
