"""The candidate to promote, with the evidence behind it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..errors import ConfigError
from ..problem.problem import Problem
from ..problem.space import Value
from ..runtime.html import html_table
from ..study.config import TunerConfig
from ..study.evidence.bucket import Bucket
from ..study.history import CONTROL
from .beliefs import Belief
from .guardrails import certified_safe
from .model import ModelState
from .verification import noise_per_round, rounds_to_decide

Criterion: TypeAlias = Literal["mean", "lcb", "ucb"]


@dataclass(frozen=True, repr=False)
class Recommendation:
    """A candidate, its posterior, and why it was chosen.

    Args:
        candidate_id: 0, the control, where no candidate is better and feasible.
        parameters: its theta, ready to serve.
        criterion: the quantity that candidates were ranked by.
        objective_mean: posterior mean of the objective, in the objective's own unit.
        objective_lcb: lower bound of its interval (``TunerConfig.confidence``, two-sided).
        objective_ucb: upper bound.
        objective_base: the objective of the base, for comparison.
        prob_feasible: probability that all constraints hold.
        delta_mean: posterior mean of each metric's delta, a fraction.
        delta_var: its variance.
        num_rounds: rounds with evidence on this candidate.
        reason: one sentence on the choice.
        leader: the most promising candidate, recommended or not: by the gain that its interval
            leaves possible, times ``prob_success``, of those on which the decision is open where
            there are any; None where no candidate can gain.
        rounds_to_decide: rounds until it is decided whether the leader is feasible and better than
            the base, with the control's present traffic and that of the arm served most; 0 where
            it is; None where a thousand do not suffice.
        proven: whether its own evidence, without its neighbours', shows that all constraints hold,
            by a confidence sequence that is right at every look with probability
            ``1 - harm_alpha``; None where ``harm_alpha`` is None.
        prob_success: probability that all constraints hold and the objective is above the base's;
            a recommendation other than the control reaches ``min_prob_feasible``.
    """

    candidate_id: int
    parameters: dict[str, Value]
    criterion: Criterion
    objective_mean: float
    objective_lcb: float
    objective_ucb: float
    objective_base: float
    prob_feasible: float
    delta_mean: dict[str, float]
    delta_var: dict[str, float]
    num_rounds: int
    reason: str
    leader: int | None = None
    rounds_to_decide: int | None = None
    proven: bool | None = None
    prob_success: float = 0.0

    def __repr__(self) -> str:
        return (
            f"Recommendation(candidate_id={self.candidate_id}, "
            f"objective_mean={self.objective_mean:.4g}, prob_feasible={self.prob_feasible:.3g}, "
            f"proven={self.proven})"
        )

    def _repr_html_(self) -> str:
        interval = f"{self.objective_lcb:.4g} … {self.objective_ucb:.4g}"
        objective = f"{self.objective_mean:.4g} ({interval}); base {self.objective_base:.4g}"
        rows: list[tuple[object, ...]] = [
            *self.parameters.items(),
            ("objective", objective),
            ("P(feasible)", f"{self.prob_feasible:.1%}"),
            ("P(feasible and better than the base)", f"{self.prob_success:.1%}"),
        ]
        rows += [
            (f"delta {name}", f"{mean:+.2%} ± {1.96 * self.delta_var[name] ** 0.5:.2%}")
            for name, mean in self.delta_mean.items()
        ]
        if self.proven is not None:
            rows.append(("proven safe", "yes" if self.proven else "not yet"))
        who = f"candidate {self.candidate_id}" if self.candidate_id else "the base (the control)"
        notes = [self.reason, self._time_to_decide().removeprefix("; ")]
        return html_table(f"Recommended: {who}", [], rows, [note for note in notes if note])

    def __str__(self) -> str:
        theta = ", ".join(
            f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}"
            for name, value in self.parameters.items()
        )
        return (
            f"candidate {self.candidate_id} {{{theta}}}\n"
            f"objective {self.objective_mean:.4g} in [{self.objective_lcb:.4g}, "
            f"{self.objective_ucb:.4g}], base {self.objective_base:.4g}; "
            f"P(feasible) {self.prob_feasible:.2f}{self._time_to_decide()}"
        )

    def _time_to_decide(self) -> str:
        if self.leader is None or self.rounds_to_decide == 0:
            return ""
        when = self.rounds_to_decide
        rounds = "more than 1000 rounds" if when is None else f"about {when} rounds"
        return f"; candidate {self.leader} can be decided in {rounds}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


def recommend(
    state: ModelState,
    config: TunerConfig,
    belief: Belief,
    criterion: Criterion,
    shares: Sequence[float],
    stopped: Collection[int] = (),
    only_proven: bool = False,
) -> Recommendation:
    """The best candidate with evidence that is likely enough a success; else the control.

    A success meets all constraints and has a higher objective than the base. Its probability must
    reach ``min_prob_feasible``.

    Args:
        state: the study's evidence and model.
        config: the levels of the bounds and of the probability of success.
        belief: the posterior of every candidate.
        criterion: the quantity that candidates are ranked by.
        shares: of the latest plan, the control's first: the present traffic.
        stopped: candidates that are never served again.
        only_proven: only candidates that a confidence sequence shows to be safe.
    Raises:
        ConfigError: an unknown criterion, or ``only_proven`` while ``harm_alpha`` is None.
    """
    certified = certified_safe(state, config)
    if only_proven and certified is None:
        raise ConfigError("harm_alpha is None, so nothing is proven; set it, e.g. to 0.01")
    if criterion not in get_args(Criterion):
        raise ConfigError(f"criterion must be one of {get_args(Criterion)}, got {criterion!r}")
    problem, bucket = state.problem, state.bucket
    score = {"mean": belief.mean, "lcb": belief.lcb, "ucb": belief.ucb}[criterion]
    has_evidence = bucket.has_evidence(problem.used_metrics)
    eligible = has_evidence & score.isfinite()
    score = score.nan_to_num(nan=-torch.inf)  # an undefined objective never wins
    eligible[list(stopped)] = False
    eligible[CONTROL] = True
    safe = eligible & (belief.prob_success >= config.min_prob_feasible)
    safe[CONTROL] = bool(belief.prob_feasible[CONTROL] >= config.min_prob_feasible)
    if only_proven and certified is not None:
        safe &= certified
    best = int(torch.where(safe, score, -torch.inf).argmax()) if bool(safe.any()) else CONTROL
    reason = _reason(best, state, config, belief, criterion, eligible, safe, only_proven)
    recommendation = describe(problem, bucket, belief, best, criterion, reason)
    if certified is not None:
        recommendation = replace(recommendation, proven=bool(certified[best]))
    leader = _leader(eligible, belief, config.min_prob_feasible)
    if leader is None:
        return recommendation
    if not shares[CONTROL]:  # a launch has ended, and nothing is compared any more
        return replace(recommendation, leader=leader)
    problem = problem.to("cpu")
    noise = noise_per_round(bucket, max(shares[1:], default=1.0), shares[CONTROL])
    rounds = rounds_to_decide(
        problem, config, belief.delta_mean[leader], belief.delta_var[leader], noise
    )
    return replace(recommendation, leader=leader, rounds_to_decide=rounds)


_BOUNDS = {"mean": "mean", "lcb": "lower bound", "ucb": "upper bound"}


def _reason(
    best: int,
    state: ModelState,
    config: TunerConfig,
    belief: Belief,
    criterion: Criterion,
    eligible: Tensor,
    safe: Tensor,
    only_proven: bool,
) -> str:
    """Why this candidate is recommended, in a sentence."""
    bound = _BOUNDS[criterion]
    prob = f"{100 * config.min_prob_feasible:.4g} %"
    needed = f"beat the base and meet all guardrails with probability >= {prob}"
    needed += " and are proven safe" if only_proven else ""
    if best != CONTROL:
        reason = f"Highest {bound} among {int(safe[1:].sum())} candidates that {needed}"
    elif not bool(state.bucket.has_evidence(state.problem.used_metrics)[1:].any()):
        reason = "no candidate has evidence yet: stay with the base"
    elif state.why_not is not None:
        reason = f"there is no estimate, because {state.why_not}: stay with the base"
    elif not bool(eligible[1:].any()):
        left = bool(belief.mean[1:].isfinite().any())
        what = "are stopped" if left else "have no defined objective"
        reason = f"all candidates with evidence {what}: stay with the base"
    elif not bool(safe[1:].any()):
        probs = torch.where(eligible, belief.prob_success, -1.0)[1:]
        closest = int(probs.argmax())
        proof = " with a proof" if only_proven else ""
        reason = (
            f"no candidate reaches {prob} probability of beating the base and meeting all "
            f"guardrails{proof} yet (candidate {closest + 1} comes closest with "
            f"{100 * float(probs[closest]):.0f} %): stay with the base"
        )
    else:
        reason = f"no candidate has a higher {bound} than the base among those that {needed}"
    if state.level_hours is not None and 0 < state.level_hours < config.rounds_per_day:
        hours = f"{state.level_hours} of {config.rounds_per_day} hours of the day"
        reason += f"; base levels rest on {hours} so far, so constraints on levels may be off"
    return reason


def _leader(eligible: Tensor, belief: Belief, min_prob: float) -> int | None:
    """The candidate that could gain most, times the probability that it succeeds.

    Where the decision is open on any candidates, it is one of them: what is clearly infeasible, or
    clearly no better than the base, leads nowhere however large its gain may be.
    """
    room = (belief.ucb - belief.mean[CONTROL]).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    promise = room.clamp_min(0) * belief.prob_success.nan_to_num(nan=0.0)
    promise = torch.where(eligible, promise, 0.0)
    promise[CONTROL] = 0.0
    is_open = belief.prob_feasible >= 1 - min_prob
    if bool((promise[is_open] > 0).any()):
        promise = torch.where(is_open, promise, 0.0)
    best = int(promise.argmax())
    return best if float(promise[best]) > 0 else None


def describe(
    problem: Problem,
    bucket: Bucket,
    belief: Belief,
    candidate: int,
    criterion: Criterion,
    reason: str,
) -> Recommendation:
    """A candidate with its posterior."""
    return Recommendation(
        candidate_id=candidate,
        parameters=problem.space.to_parameters(bucket.theta[candidate : candidate + 1])[0],
        criterion=criterion,
        objective_mean=float(belief.mean[candidate]),
        objective_lcb=float(belief.lcb[candidate]),
        objective_ucb=float(belief.ucb[candidate]),
        objective_base=float(belief.mean[CONTROL]),
        prob_feasible=float(belief.prob_feasible[candidate]),
        delta_mean=dict(zip(problem.metrics, belief.delta_mean[candidate].tolist())),
        delta_var=dict(zip(problem.metrics, belief.delta_var[candidate].tolist())),
        num_rounds=int(bucket.num_rounds[candidate]),
        reason=reason,
        prob_success=float(belief.prob_success[candidate].nan_to_num(nan=0.0)),
    )
