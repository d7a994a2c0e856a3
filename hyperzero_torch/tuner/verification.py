"""Verification: traffic for the points whose verification would improve the recommendation most.

A recommendation needs P(feasible) >= p. Where a guardrail binds, this keeps it away from the
boundary by a margin that shrinks as evidence grows. The knowledge gradient values every point of
the space by an expectation: if the point were verified for some hours, would it be safe then, and
by how much would it exceed the best recommendation of today? Points that are safe already gain
little, and points that are unlikely to be feasible gain rarely; the best are between these.

Source: Frazier, Powell and Dayanik (2009), the knowledge gradient; here with feasibility, for one
point on its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..problem.problem import Problem
from ..runtime.memory import elements
from ..stats.normals import sobol_normals
from ..study.config import TunerConfig
from ..study.evidence.bucket import Bucket
from ..study.history import CONTROL
from ..study.journal import CandidateAdded
from ..surrogate.protocol import FittedPosterior
from ..thompson.local_search import WIDTHS, local_search
from .beliefs import beats
from .candidates import add_candidates
from .context import RoundContext
from .limits import untested
from .model import Fitted

#: Rounds of verification to look ahead; one leader each.
HORIZONS = (3.0, 12.0)
# Shares of a leader and of the control during verification.
_LEADER_SHARE, _CONTROL_SHARE = 0.5, 0.5
# A leader within this distance of a candidate, in lengthscales, is that candidate.
_SAME = 0.05
_NUM_OUTCOMES = 32  # of the verification
# Draws of the posterior after each outcome: P(feasible) to 1/32, so 0.97 and 1 are the same.
_NUM_DRAWS = 32
_NUM_SAMPLES = 1024
# Elements of one tile, (draws, outcomes, points, metrics): 4 MiB in float64, so that what follows a
# step still lies in the processor's cache. Whole multiples of points, so that vectorised sums fall
# into the same parts as without tiles, and their last bits too.
_TILE_ELEMENTS = 2**19
_TILE_MULTIPLE = 64
# With more candidates their marginals take most of the time of a round, and are kept.
_MANY = 1000
_MAX_ROUNDS = 1000
_NUM_DECISION_DRAWS = 512


def leaders(state: Fitted, context: RoundContext) -> tuple[list[int], list[CandidateAdded]]:
    """Candidates to verify, and those of them that have to be added for it.

    A leader all but equal to a candidate is that candidate, which has evidence already. While the
    traffic of one without own evidence is limited, the best that has evidence is verified as well.
    """
    history, posterior = context.history, state.posterior
    problem = state.fitted_problem
    space = problem.space
    # Outside the bounds nothing is verified, and nothing there can be recommended.
    ids = [c for c in state.fit_set.tolist() if c not in history.status.outside]
    x = state.to_unit(history.theta[ids])
    noise = noise_per_round(state.bucket, _LEADER_SHARE, _CONTROL_SHARE).to(x)
    gradient = _KnowledgeGradient(
        posterior,
        problem,
        x,
        context.config.min_prob_feasible,
        noise,
        context.generator("lead", posterior.device),
    )
    points, bucket = _best_points(gradient, x), tuple(ids)
    x, lengthscale = x.cpu(), posterior.lengthscale.amin(0).cpu()
    leading: list[int] = []
    added: list[CandidateAdded] = []
    for point in points:
        distance = ((x - point) / lengthscale).square().sum(-1).sqrt()
        closest = int(distance.argmin())
        theta = space.from_unit(point).unsqueeze(0)
        # A candidate outside the fit set must not be added a second time: it may be stopped.
        is_near = float(distance[closest]) <= _SAME
        candidate = ids[closest] if is_near else history.find(theta[0].tolist())
        if candidate is None:
            added += add_candidates(
                state.problem, theta, history, context.round, "leader", len(added)
            )
            candidate = added[-1].candidate
        if not is_near:
            ids.append(candidate)
            x = torch.cat([x, point.unsqueeze(0)])
        if candidate not in {CONTROL, *history.status.stopped, *leading}:
            leading.append(candidate)
    if context.config.max_untested_share < 1 and bool(
        untested(state, torch.tensor(leading).long()).any()
    ):
        tested = _best_tested(gradient, bucket, state, context)
        leading += [c for c in tested if c not in leading]
    return leading, added


def _best_tested(
    gradient: _KnowledgeGradient, bucket: Sequence[int], state: Fitted, context: RoundContext
) -> list[int]:
    """Of the gradient's bucket with own evidence, the one most worth verifying for each horizon."""
    ids = torch.tensor(bucket, dtype=torch.long)
    out = torch.tensor([c == CONTROL or c in context.history.status.stopped for c in bucket])
    rows = (~untested(state, ids) & ~out).nonzero().flatten()
    if not len(rows):
        return []
    best, values = gradient.best_of_bucket(rows)
    index, value = torch.stack([best[:, 0].to(values), values[:, 0]]).cpu()
    chosen = ids[rows[index.long()]][value > 0]
    return list(dict.fromkeys(chosen.tolist()))


def knowledge_gradient(
    posterior: FittedPosterior,
    problem: Problem,
    bucket_x: Tensor,
    min_prob_feasible: float,
    noise: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The point of the space most worth verifying, for each horizon, on the CPU.

    A horizon in which no point is expected to beat what is safe today has none.

    Args:
        posterior: over the unit cube, in deltas.
        problem: on the posterior's device.
        bucket_x: ``(n, dims)`` the bucket: what can be recommended today, and where to search.
        min_prob_feasible: what P(feasible) must reach.
        noise: ``(metrics,)`` variance of a delta after one round of verification.
        generator: on the posterior's device.
    Returns:
        ``(leaders, dims)``, servable, at most one per horizon.
    """
    gradient = _KnowledgeGradient(posterior, problem, bucket_x, min_prob_feasible, noise, generator)
    return _best_points(gradient, bucket_x)


def _best_points(gradient: _KnowledgeGradient, bucket_x: Tensor) -> Tensor:
    space, generator = gradient.problem.space, gradient.generator
    x = torch.cat([bucket_x, space.uniform(_NUM_SAMPLES, generator).to(bucket_x)])
    per_horizon = _NUM_SAMPLES // (len(WIDTHS) * len(HORIZONS))
    points, values = local_search(space, x, gradient.best, per_horizon, generator)
    *columns, best = torch.cat([points[:, 0], values], dim=1).cpu().T
    return torch.stack(columns, dim=1)[best > 0]


def noise_per_round(bucket: Bucket, arm_share: float, control_share: float) -> Tensor:
    """Variance of one round's delta of an arm with these shares, ``(metrics,)``.

    Infinite as long as no round has reported.
    """
    precision = bucket.round_precision / (1.0 / arm_share + 1.0 / control_share)
    return torch.where(precision > 0, bucket.dispersion / precision, torch.inf)


def posterior_variance_after(var: Tensor, noise: Tensor, rounds: float) -> Tensor:
    """What remains of ``var (..., metrics)`` after so many rounds of ``noise (metrics,)``.

    A delta with variance v, measured for rounds whose total variance is s^2, has variance
    v s^2 / (v + s^2) afterwards; until then its mean moves, with the difference as variance.
    Neighbours' evidence is not counted, so nothing is promised too early.
    """
    return var / (1.0 + rounds * var / noise)


def rounds_to_decide(
    problem: Problem, config: TunerConfig, mean: Tensor, var: Tensor, noise: Tensor
) -> int | None:
    """Rounds after which it is decided whether a candidate is safe and better than the base.

    Under the assumption that the means of its deltas stay and only their variances shrink. Decided
    means: it would be recommended by its lower bound, so that it meets all constraints and beats
    the base with probability ``min_prob_feasible`` and the objective's interval lies above the
    base's; or P(feasible) is as clearly too low, or the interval lies below the base's.

    Args:
        problem: on the device of ``mean``.
        config: the levels of both.
        mean: ``(metrics,)`` posterior means of the candidate's deltas.
        var: ``(metrics,)`` their variances.
        noise: ``(metrics,)`` variance of one round's delta.
    Returns:
        0 where it is decided today; None where a thousand rounds do not suffice. In steps of a
        fifth.
    """
    steps = sorted({0, *(round(1.2**k) for k in range(60) if 1.2**k < _MAX_ROUNDS), _MAX_ROUNDS})
    remaining = torch.stack([posterior_variance_after(var, noise, rounds) for rounds in steps])
    normal = sobol_normals(_NUM_DECISION_DRAWS, len(mean), seed=0).to(mean)
    with torch.no_grad():
        outcome = problem.evaluate(mean + remaining.sqrt().unsqueeze(1) * normal)  # (steps, draws)
        base = problem.evaluate(torch.zeros_like(mean).unsqueeze(0))
    prob = outcome.feasible.to(mean.dtype).mean(1)
    success = (outcome.feasible & beats(outcome.utility, base)).to(mean.dtype).mean(1)
    tail = (1 - config.confidence) / 2
    low, high = torch.quantile(outcome.utility, mean.new_tensor([tail, 1 - tail]), dim=1)
    recommended = (success >= config.min_prob_feasible) & beats(low, base)
    unsafe = prob < 1 - config.min_prob_feasible
    decided = recommended | unsafe | ((high < base.utility) & ~beats(high, base))
    first = decided.nonzero().flatten().tolist()
    return steps[first[0]] if first else None


class _KnowledgeGradient:
    """Expected gain of the recommendation from verifying a point, over what is safe today."""

    def __init__(
        self,
        posterior: FittedPosterior,
        problem: Problem,
        bucket_x: Tensor,
        min_prob: float,
        noise: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.posterior, self.problem, self.generator = posterior, problem, generator
        self.min_prob, self.noise = min_prob, noise
        seed = int(torch.randint(2**31, (2,), generator=generator, device=generator.device)[0])
        self.outcomes = sobol_normals(_NUM_OUTCOMES, posterior.num_metrics, seed).to(bucket_x)
        self.draws = sobol_normals(_NUM_DRAWS, posterior.num_metrics, seed + 1).to(bucket_x)
        with torch.no_grad():
            base = torch.zeros(
                1, posterior.num_metrics, dtype=bucket_x.dtype, device=bucket_x.device
            )
            floor = problem.evaluate(base).utility.nan_to_num(nan=-torch.inf)
            mean, var = posterior.marginal(bucket_x)
            expected, safe = self._judge(mean + var.sqrt() * self.draws.unsqueeze(1))
        self._bucket = (bucket_x, mean, var)
        #: Expected utility of the best point that is safe today.
        self.floor = torch.cat([floor, torch.where(safe, expected, -torch.inf)]).max()

    def best(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The best row of ``x (N, dims)`` and its value, each ``(horizons, 1)``."""
        return self._best(*self._marginal(x))

    def best_of_bucket(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The same of rows of the bucket, by their place in ``rows``, on the CPU."""
        x, mean, var = (field[rows.to(field.device)] for field in self._bucket)
        is_kept = len(self._bucket[0]) > _MANY
        return self._best(*((mean, var) if is_kept else self.posterior.marginal(x)))

    def _best(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        row = _NUM_OUTCOMES * _NUM_DRAWS * mean.shape[1]
        points = elements(mean.device, _TILE_ELEMENTS) // row
        tile = max(1, points // _TILE_MULTIPLE) * _TILE_MULTIPLE
        if mean.device.type != "cpu":
            return self._best_of_all_horizons(mean, var, tile)
        rows, values = [], []
        for rounds in HORIZONS:
            after = posterior_variance_after(var, self.noise, rounds)
            movement = (var - after).clamp_min(0).sqrt()
            fields = (torch.split(t, tile) for t in (mean, movement, after.sqrt()))
            value = torch.cat([self._value(*part) for part in zip(*fields)])
            rows.append(value.argmax())
            values.append(value[rows[-1]])
        return torch.stack(rows).unsqueeze(1), torch.stack(values).unsqueeze(1)

    def _marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``posterior.marginal``; those of many candidates are not computed a second time."""
        bucket_x, mean, var = self._bucket
        num = len(bucket_x)
        if num <= _MANY or len(x) < num or not torch.equal(x[:num], bucket_x):
            return self.posterior.marginal(x)
        rest = self.posterior.marginal(x[num:])
        return torch.cat([mean, rest[0]]), torch.cat([var, rest[1]])

    def _best_of_all_horizons(self, mean: Tensor, var: Tensor, tile: int) -> tuple[Tensor, Tensor]:
        """``best`` for a card: all horizons at once, and no value is read."""
        after = torch.stack([posterior_variance_after(var, self.noise, r) for r in HORIZONS])
        movement = (var - after).clamp_min(0).sqrt()
        means = mean.expand_as(after)
        fields = (torch.split(t.flatten(0, 1), tile) for t in (means, movement, after.sqrt()))
        value = torch.cat([self._value(*part) for part in zip(*fields)]).view(len(HORIZONS), -1)
        best = value.max(dim=1, keepdim=True)
        return best.indices, best.values

    def _value(self, mean: Tensor, movement: Tensor, std_after: Tensor) -> Tensor:
        # Metrics first in memory: every term reads one metric of all draws at a time.
        mean, movement, std_after, outcomes, draws = (
            t.T.contiguous() for t in (mean, movement, std_after, self.outcomes, self.draws)
        )
        with torch.no_grad():
            mean_after = mean.unsqueeze(1) + movement.unsqueeze(1) * outcomes.unsqueeze(2)
            spread = std_after[:, None, None] * draws[:, :, None, None]
            delta = mean_after.unsqueeze(1) + spread  # (metrics, draws, outcomes, N)
            expected, safe = self._judge(delta.movedim(0, -1))
        gain = (expected - self.floor).nan_to_num(nan=0.0).clamp_min(0)
        return torch.where(safe, gain, 0.0).mean(0)

    def _judge(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Expected utility and whether P(feasible) suffices, from draws along the first axis."""
        outcome = self.problem.evaluate(delta)
        prob = outcome.feasible.to(delta.dtype).mean(0)
        return outcome.utility.mean(0).nan_to_num(nan=-torch.inf), prob >= self.min_prob
