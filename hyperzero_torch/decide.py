"""Algorithm 2, one round of it: from what is known to who is served, and who is born.

Everything here is a function of (problem, configuration, history, round, seed): the same journal
gives the same plan.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from .allocate import (
    choose_arms,
    places_for_newcomers,
    round_robin,
    shares,
    verification_slots,
)
from .bucket import Bucket, gather
from .config import TunerConfig
from .errors import FitError
from .history import CONTROL, History
from .journal import Born, Decided, Entry, Planned
from .leaders import leaders
from .problem import Problem
from .surrogate import Hyperparameters, Posterior, Surrogate, similarity
from .thompson import propose, select, select_paths
from .thompson.propose import Proposals

# A leader so near to a candidate, in lengthscales, is that candidate.
_SAME = 0.05


class Known(NamedTuple):
    """What a round decides on: the bucket, the problem with its levels, and a fitted posterior.

    ``posterior`` is None, and ``why_not`` says why, as long as there is nothing to fit.
    """

    bucket: Bucket
    problem: Problem
    posterior: Posterior | None
    why_not: str | None


#: The last fit, under the number of messages and the configuration that it was made with.
FitCache: TypeAlias = dict[tuple[int, TunerConfig], tuple[Posterior | None, str | None]]


class Votes(NamedTuple):
    """Slots per candidate ``(candidates,)``, and how many draws had no feasible candidate."""

    slots: Tensor
    num_infeasible: int


def random(seed: int, round: int, purpose: str, device: torch.device) -> torch.Generator:
    """The generator of one purpose in one round, so that any round can be replayed alone."""
    digest = hashlib.sha256(f"{seed}/{round}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def learn(
    problem: Problem, config: TunerConfig, history: History, device: torch.device, fit: FitCache
) -> Known:
    """Fold the readings into evidence; fit where readings came since the cached fit."""
    bucket = gather(history, config.weights, config.rounds_per_day, config.calibrate)
    if problem.base_levels is None and bucket.base_levels is not None:
        problem = problem.with_base_levels(bucket.base_levels)
    if problem.sees_levels and problem.base_levels is None:
        return Known(bucket, problem, None, "the control has not reported every metric yet")
    tested = bucket.tested
    if not bool(tested.any()):
        silent = [m for m, w in zip(problem.metrics, bucket.weight.sum(0).tolist()) if w == 0]
        which = f"; of {silent} no arm and control have reported together" if silent else ""
        return Known(bucket, problem, None, f"no candidate has evidence on every metric yet{which}")
    key = (history.num_messages, config)
    if key not in fit:
        fit.clear()
        fit[key] = _fit(problem, config, bucket, history, device)
    return Known(bucket, problem, *fit[key])


def _fit(
    problem: Problem,
    config: TunerConfig,
    bucket: Bucket,
    history: History,
    device: torch.device,
) -> tuple[Posterior | None, str | None]:
    start = None
    if history.warm_start is not None:
        fields = {
            name: torch.tensor(value, dtype=torch.float64, device=device)
            for name, value in history.warm_start.items()
        }
        start = Hyperparameters(**fields)
    rows = bucket.tested.nonzero().squeeze(-1)
    if config.anchor:  # the base, whose delta is 0 by definition
        rows = torch.cat([torch.tensor([CONTROL]), rows])
    x = problem.space.to_unit(bucket.theta[rows]).to(device)
    mean, var = bucket.mean[rows].to(device), bucket.var[rows].to(device)
    if config.anchor:
        mean[0], var[0] = 0.0, 0.0
    shared = bucket.shared(rows).to(device) if config.shared_control else None
    try:
        return Surrogate(start).fit(x, mean, var, shared), None
    except FitError as error:
        return None, f"the fit failed: {error}"


def decide(
    known: Known,
    config: TunerConfig,
    history: History,
    round: int,
    seed: int,
    trigger: str | None = None,
) -> list[Entry]:
    """The entries that plan a round: births first, then the plan, then decisions worth a note."""
    problem = known.problem
    notes: list[Entry] = []
    history = history.branch()
    births = _first_bucket(problem, config, seed) if history.num_candidates == 0 else []
    history.extend(births)
    details: dict[str, Any] = {"num_tested": int(known.bucket.tested.sum())}
    if known.posterior is None:
        slots = round_robin(history.times_served, config)
        details["why"] = known.why_not
        if known.why_not is not None and details["num_tested"]:  # evidence that was not used
            notes.append(Decided(round, "fallback", known.why_not))
    else:
        verify = verification_slots(config, round)
        leading, led = _lead(known, history, config, round, seed) if verify else ([], [])
        history.extend(led)
        waiting = sum(served == 0 for served in history.times_served[1:])
        free = places_for_newcomers(config) - waiting
        proposals = _proposals(known, config, round, seed, free) if free > 0 else None
        newborn = _births(problem, history, proposals, round)
        history.extend(newborn)
        births += [*led, *newborn]
        verify = verify if leading else 0
        votes = _vote(known, history, config, round, seed, config.num_draws - verify)
        slots = votes.slots
        for leader in leading:
            slots[leader] += verify // len(leading)
        details |= {
            "fit_succeeded": known.posterior.fit_succeeded,
            "num_infeasible_draws": votes.num_infeasible,
            "proposed": [b.candidate for b in newborn],
            "leaders": leading,
            "hyperparameters": {
                name: value.tolist()
                for name, value in known.posterior.hyperparameters._asdict().items()
            },
        }
    arms, slots = choose_arms(history.times_served, slots, config)
    alike = None
    if config.evidence == "pooled":
        fitted = None if known.posterior is None else known.posterior.hyperparameters
        alike = similarity(problem.space.to_unit(history.theta[arms]), fitted)
    plan = Planned(
        round=round,
        candidates=(CONTROL, *arms.tolist()),
        slots=(0, *slots.tolist()),
        shares=shares(arms, slots, _last_shares(history), config, alike),
        trigger=trigger,
        details=details,
    )
    return [*births, plan, *notes]


def _lead(
    known: Known, history: History, config: TunerConfig, round: int, seed: int
) -> tuple[list[int], list[Born]]:
    """Candidates to verify, and those of them that have to be born for it.

    A leader that all but lies on a candidate is that candidate: it has evidence already.
    """
    posterior = known.posterior
    assert posterior is not None  # the caller's branch
    problem = known.problem.to(posterior.device)
    x = problem.space.to_unit(history.theta).to(posterior.x)
    generator = random(seed, round, "lead", posterior.device)
    found = leaders(posterior, problem, x, config.min_prob_feasible, generator)
    lengthscale = posterior.hyperparameters.lengthscale.amin(0)
    leading: list[int] = []
    births: list[Born] = []
    for row in found:
        distance = ((x - row) / lengthscale).square().sum(-1).sqrt()
        nearest = int(distance.argmin())
        if float(distance[nearest]) > _SAME:
            theta = problem.space.from_unit(row.cpu()).unsqueeze(0)
            births += _born(known.problem, theta, history, round, "leader", len(births))
            nearest = births[-1].candidate
            x = torch.cat([x, row.unsqueeze(0)])
        if nearest != CONTROL and nearest not in leading:
            leading.append(nearest)
    return leading, births


def _vote(
    known: Known, history: History, config: TunerConfig, round: int, seed: int, num_draws: int
) -> Votes:
    """Algorithm 1 over the bucket, newcomers included where the posterior speaks for them."""
    posterior = known.posterior
    assert posterior is not None  # the caller's branch
    problem, bucket = known.problem.to(posterior.device), known.bucket
    generator = random(seed, round, "select", posterior.device)
    slots = torch.zeros(history.num_candidates, dtype=torch.long)
    if config.evidence == "own":
        rows = bucket.tested.nonzero().squeeze(-1)
        mean, var = bucket.mean[rows].to(posterior.x), bucket.var[rows].to(posterior.x)
        chosen = select(mean, var, problem, num_draws, generator, config.caution)
    else:
        rows = torch.arange(1, history.num_candidates)
        x = problem.space.to_unit(history.theta[rows]).to(posterior.x)
        if config.draws == "joint":
            paths = posterior.paths(num_draws, generator)
            chosen = select_paths(paths, x, problem, config.caution)
        else:
            mean, var = posterior.marginal(x)
            chosen = select(mean, var, problem, num_draws, generator, config.caution)
    slots[rows] = chosen.counts.cpu()
    return Votes(slots, int(chosen.num_infeasible))


def _proposals(
    known: Known, config: TunerConfig, round: int, seed: int, free: int
) -> Proposals | None:
    """Algorithm 3, with probability p; no more than there are ``free`` places for."""
    posterior = known.posterior
    assert posterior is not None  # the caller's branch
    coin = random(seed, round, "coin", torch.device("cpu"))
    if float(torch.rand((), generator=coin, dtype=torch.float64)) >= config.proposal_probability:
        return None
    return propose(
        posterior,
        known.problem.to(posterior.device),
        config.num_samples,
        min(config.num_proposals, free),
        random(seed, round, "propose", posterior.device),
        config.draws,
        config.num_starts,
    )


def _births(
    problem: Problem, history: History, proposals: Proposals | None, round: int
) -> list[Born]:
    """Proposals that are not in the bucket yet; the same point twice is one candidate."""
    if proposals is None:
        return []
    theta = [row for row in proposals.theta.tolist() if history.find(row) is None]
    unique = list(dict.fromkeys(map(tuple, theta)))
    return _born(problem, torch.tensor(unique, dtype=torch.float64), history, round, "proposal")


def _first_bucket(problem: Problem, config: TunerConfig, seed: int) -> list[Born]:
    """The control, then the initial candidates by Sobol or grid."""
    space = problem.space
    if config.initial_design == "grid":
        x = space.grid(config.initial_candidates)
    else:
        generator = random(seed, 0, "initial", torch.device("cpu"))
        x = space.sobol(config.initial_candidates, seed=generator.initial_seed() % 2**31)
    theta = space.from_unit(x)
    theta = torch.tensor(list(dict.fromkeys(map(tuple, theta.tolist()))), dtype=torch.float64)
    theta = theta[(theta != problem.base_theta).any(-1)]  # the base is served as the control
    if not len(theta):  # a few points of a small space can all be the base
        theta = space.from_unit(space.sobol(256, seed=0))
        theta = theta[(theta != problem.base_theta).any(-1)][:1]
    empty = History(space.num_params, problem.metrics)
    control = _born(problem, problem.base_theta.unsqueeze(0), empty, 0, "base")
    empty.extend(control)
    return [*control, *_born(problem, theta, empty, 0, "initial")]


def _born(
    problem: Problem, theta: Tensor, history: History, round: int, origin: str, after: int = 0
) -> list[Born]:
    """New candidates, numbered on from the history's and ``after`` more."""
    first = history.num_candidates + after
    return [
        Born(first + i, round, origin, tuple(row), parameters)
        for i, (row, parameters) in enumerate(
            zip(theta.tolist(), problem.space.to_parameters(theta))
        )
    ]


def _last_shares(history: History) -> dict[int, float]:
    """Share by candidate in the last plan; empty before the first."""
    if history.last_round is None:
        return {}
    last = history.plans[history.last_round]
    return dict(zip(last.candidates, last.shares))
