"""The candidate to promote, with the evidence behind it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from ..errors import ConfigError
from ..problem.problem import Problem
from ..problem.space import Value
from ..study.config import TunerConfig
from ..study.evidence.bucket import Bucket
from ..study.history import CONTROL
from ..surrogate import Posterior
from .guardrails import proven
from .model import ModelState
from .outlook import noise_per_round, rounds_to_decide

Criterion: TypeAlias = Literal["mean", "lcb", "ucb"]
_NUM_DRAWS = 2048


@dataclass(frozen=True)
class Recommendation:
    """A candidate, what is believed of it, and why it was chosen.

    Args:
        candidate_id: 0 is the control: nothing better was found, or nothing feasible.
        parameters: its theta, ready to serve.
        criterion: what candidates were ranked by.
        objective_mean: posterior mean of the objective, in the objective's own unit.
        objective_lcb: lower bound of its interval (``TunerConfig.confidence``, two-sided).
        objective_ucb: upper bound.
        objective_base: the objective of the base, for comparison.
        prob_feasible: probability that all constraints hold.
        delta_mean: believed delta of each metric, a fraction.
        delta_var: its variance.
        num_rounds: rounds with evidence on this candidate.
        reason: one sentence on the choice.
        leader: the most promising candidate by gain times P(feasible), recommended yet or not;
            None where none promises anything.
        rounds_to_decide: rounds until it is clear whether the leader is feasible and better than
            the base, with the control's present traffic and that of the arm served most; 0 where
            it is; None where a thousand will not do.
        proven: whether its own evidence, without its neighbours', shows that all constraints hold,
            by a confidence sequence that is right at every look with probability
            ``1 - harm_alpha``; None where ``harm_alpha`` is.
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

    def __str__(self) -> str:
        theta = ", ".join(
            f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}"
            for name, value in self.parameters.items()
        )
        return (
            f"candidate {self.candidate_id} {{{theta}}}\n"
            f"objective {self.objective_mean:.4g} in [{self.objective_lcb:.4g}, "
            f"{self.objective_ucb:.4g}], base {self.objective_base:.4g}; "
            f"P(feasible) {self.prob_feasible:.2f}{self._outlook()}"
        )

    def _outlook(self) -> str:
        if self.leader is None or self.rounds_to_decide == 0:
            return ""
        when = self.rounds_to_decide
        rounds = "more than 1000 rounds" if when is None else f"about {when} rounds"
        return f"; candidate {self.leader} will be decided in {rounds}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


class Belief(NamedTuple):
    """What is believed of candidates ``(C,)``, row 0 the control (known exactly: delta 0).

    ``mean``, ``lcb``, ``ucb`` of the objective, ``prob_feasible``; NaN where nothing is known.
    ``delta_mean`` and ``delta_var`` are ``(C, metrics)``.
    """

    mean: Tensor
    lcb: Tensor
    ucb: Tensor
    prob_feasible: Tensor
    delta_mean: Tensor
    delta_var: Tensor


def believe(
    problem: Problem,
    config: TunerConfig,
    bucket: Bucket,
    posterior: Posterior,
    generator: torch.Generator,
    view: Tensor | None = None,
) -> Belief:
    """Objective and feasibility of candidates, by draws of their deltas; on the CPU.

    Arbitrary objectives have no closed form, so their moments come from 2048 draws per candidate,
    the same normals for all, which makes candidates comparable beyond the noise of the draws.

    ``view (n,)`` are the candidates asked for, the control first; None for all.
    """
    rows = torch.arange(len(bucket.theta)) if view is None else view
    x = problem.space.to_unit(bucket.theta[rows]).to(posterior.x)
    if config.evidence == "pooled":
        mean, var = posterior.marginal(x)
    else:
        mean, var = bucket.mean[rows].to(posterior.x), bucket.var[rows].to(posterior.x)
    mean[CONTROL], var[CONTROL] = 0.0, 0.0
    normal = torch.randn(
        _NUM_DRAWS, 1, mean.shape[1], dtype=mean.dtype, device=mean.device, generator=generator
    )
    # Every draw has its mirror image: exact means for objectives linear in the deltas.
    normal = torch.cat([normal, -normal])
    tail = (1 - config.confidence) / 2
    quantiles = torch.tensor([tail, 1 - tail], dtype=mean.dtype, device=mean.device)
    columns: list[Tensor] = []
    with torch.no_grad():
        for some in torch.split(torch.arange(len(mean)), 256):
            outcome = problem.evaluate(mean[some] + var[some].sqrt() * normal)
            bounds = torch.quantile(outcome.utility, quantiles, dim=0)
            feasible = outcome.feasible.to(mean.dtype).mean(0)
            columns.append(torch.stack([outcome.utility.mean(0), *bounds, feasible]))
    told = (*torch.cat(columns, dim=1).cpu().unbind(0), mean.cpu(), var.cpu())
    return Belief(*(_spread(field, rows, len(bucket.theta)) for field in told))


def _spread(values: Tensor, rows: Tensor, num: int) -> Tensor:
    """Rows put into their places among ``num``; NaN in the others."""
    spread = values.new_full((num, *values.shape[1:]), torch.nan)
    spread[rows] = values
    return spread


def recommend(
    known: ModelState,
    config: TunerConfig,
    belief: Belief,
    criterion: Criterion,
    shares: Sequence[float],
    stopped: Collection[int] = (),
    only_proven: bool = False,
) -> Recommendation:
    """The best candidate with evidence that reaches ``min_prob_feasible``; else the control.

    Args:
        known: what the study has learnt.
        config: the levels of the bounds and of P(feasible).
        belief: what follows for every candidate.
        criterion: what candidates are ranked by.
        shares: of the latest plan, the control's first: the present traffic.
        stopped: candidates that are never to be served again.
        only_proven: leave out whom a confidence sequence does not show to be safe yet.
    Raises:
        ConfigError: an unknown criterion, or a proof is asked for and none is kept.
    """
    shown = proven(known, config)
    if only_proven and shown is None:
        raise ConfigError("harm_alpha is None, so nothing is proven; set it, e.g. to 0.01")
    if criterion not in get_args(Criterion):
        raise ConfigError(f"criterion must be one of {get_args(Criterion)}, got {criterion!r}")
    problem, bucket = known.problem, known.bucket
    score = {"mean": belief.mean, "lcb": belief.lcb, "ucb": belief.ucb}[criterion]
    eligible = bucket.tested & score.isfinite()
    score = score.nan_to_num(nan=-torch.inf)  # an objective that the base has not, never wins
    eligible[list(stopped)] = False
    eligible[CONTROL] = True
    safe = eligible & (belief.prob_feasible >= config.min_prob_feasible)
    if only_proven and shown is not None:
        safe &= shown
    best = int(torch.where(safe, score, -torch.inf).argmax()) if bool(safe.any()) else CONTROL
    threshold = f"P(feasible) >= {config.min_prob_feasible:g}"
    threshold += " and a proof at every look" if only_proven else ""
    if best != CONTROL:
        reason = f"best {criterion} of {int(safe[1:].sum())} candidates with {threshold}"
    elif not bool(eligible[1:].any()):
        why = (
            "with evidence is left that was not stopped"
            if bool(bucket.tested[1:].any())
            else "has evidence yet"
        )
        reason = f"no candidate {why}: stay with the base"
    elif not bool(safe[1:].any()):
        likeliest = int(torch.where(eligible, belief.prob_feasible, -1.0)[1:].argmax()) + 1
        reason = (
            f"no candidate reaches {threshold} (candidate {likeliest} comes nearest with "
            f"{float(belief.prob_feasible[likeliest]):.2f}): stay with the base"
        )
    else:
        reason = f"no candidate with {threshold} is better than the base by {criterion} yet"
    if known.level_hours is not None and known.level_hours < config.rounds_per_day:
        seen = f"{known.level_hours} of {config.rounds_per_day} hours of the day"
        reason += f"; base levels rest on {seen} so far, so what sees levels may be off"
    found = describe(problem, bucket, belief, best, criterion, reason)
    if shown is not None:
        found = replace(found, proven=bool(shown[best]))
    leader = _leader(eligible, belief)
    if leader is None:
        return found
    problem = problem.to("cpu")
    noise = noise_per_round(bucket, max(shares[1:], default=1.0), shares[CONTROL])
    rounds = rounds_to_decide(
        problem, config, belief.delta_mean[leader], belief.delta_var[leader], noise
    )
    return replace(found, leader=leader, rounds_to_decide=rounds)


def _leader(eligible: Tensor, belief: Belief) -> int | None:
    """Who promises most; a promise is a gain over the base by its probability to be feasible."""
    gain = (belief.mean - belief.mean[CONTROL]).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    promise = torch.where(eligible, gain.clamp_min(0) * belief.prob_feasible, 0.0)
    promise = promise.nan_to_num(nan=0.0)
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
    """All that is believed of one candidate."""
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
    )


def no_belief(problem: Problem, bucket: Bucket) -> Belief:
    """Before any evidence: the control is known to be itself, of the others nothing is."""
    shape = (len(bucket.theta), problem.num_metrics)
    delta = torch.full(shape, torch.nan, dtype=torch.float64)
    delta[CONTROL] = 0.0
    unknown = torch.full(shape[:1], torch.nan, dtype=torch.float64)
    mean, prob = unknown.clone(), torch.zeros_like(unknown)
    if problem.base_levels is not None or not problem.sees_levels:
        with torch.no_grad():
            outcome = problem.to("cpu").evaluate(delta[:1])
        mean[CONTROL] = outcome.utility[0]
        prob[CONTROL] = outcome.feasible.double()[0]
    return Belief(mean, mean.clone(), mean.clone(), prob, delta, torch.zeros_like(delta))
