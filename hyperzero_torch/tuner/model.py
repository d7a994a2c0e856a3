"""From the history to what a round decides on: evidence, levels, and a fitted posterior."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import FitError
from ..problem.problem import Problem
from ..study.config import TunerConfig
from ..study.evidence.active_set import in_view
from ..study.evidence.blocks import Memo, blocks
from ..study.evidence.bucket import Bucket, gather
from ..study.evidence.pooling import Pooling
from ..study.history import CONTROL, History
from ..surrogate import Hyperparameters, Posterior, Surrogate
from ..transfer import features
from ..transfer.journaled import overruled, recorded
from ..transfer.prior import Judgement, Prior


class ModelState(NamedTuple):
    """What a round decides on: the bucket, the problem with its levels, and a fitted posterior.

    ``view (n,)`` are the candidates to look at, ``memo`` holds the settled blocks behind it.
    ``posterior`` is None, and ``why_not`` says why, as long as there is nothing to fit.
    ``level_hours`` counts the hours of the day that estimated base levels rest on; None where
    nobody has to estimate them. ``prior`` is what other domains tell, None without sources, and
    ``judgement`` what a fit made of it: ``posterior`` is the judgement's.
    """

    bucket: Bucket
    problem: Problem
    view: Tensor
    posterior: Posterior | None
    why_not: str | None
    level_hours: int | None = None
    memo: Memo | None = None
    prior: Prior | None = None
    judgement: Judgement | None = None

    @property
    def cold(self) -> Posterior | None:
        """The posterior by the study's own evidence alone."""
        return self.posterior if self.judgement is None else self.judgement.cold


class Fit(NamedTuple):
    """A posterior, or why there is none; and the judgement on other domains behind it."""

    posterior: Posterior | None
    why_not: str | None
    judgement: Judgement | None = None


class FitCache(NamedTuple):
    """What need not be thought of twice: a study's settled blocks, its last fit, its sources.

    ``fit`` holds it under the numbers of messages and of decisions about them, the configuration,
    and the candidates it was fitted to; ``prior`` under the number of decisions and the way of
    learning.
    """

    memo: Memo
    fit: dict[tuple[Any, ...], Fit]
    prior: dict[tuple[int, str], Prior | None]

    @classmethod
    def nothing(cls) -> FitCache:
        """To begin with."""
        return cls({}, {}, {})

    def forget(self) -> None:
        """Begin anew, for another study."""
        self.memo.clear()
        self.fit.clear()
        self.prior.clear()


def pooling(config: TunerConfig) -> Pooling:
    """How a configuration pools deltas."""
    return Pooling(config.weights, config.rounds_per_day, config.calibrate, config.block_rounds)


def learn(
    problem: Problem, config: TunerConfig, history: History, device: torch.device, learnt: FitCache
) -> ModelState:
    """Fold the readings into evidence; fit where readings came since the last fit."""
    prior = prior_of(problem, config, history, learnt)
    bucket = gather(history, pooling(config), learnt.memo)
    view = in_view(history, bucket, config)
    hours = bucket.level_hours if problem.sees_levels and problem.base_levels is None else None
    if problem.base_levels is None and bucket.base_levels is not None:
        problem = problem.with_base_levels(bucket.base_levels)
    if problem.sees_levels and problem.base_levels is None:
        why = "the control has not reported every metric yet"
        return ModelState(bucket, problem, view, None, why, prior=prior)
    if not bool(bucket.tested.any()):
        silent = [m for m, w in zip(problem.metrics, bucket.weight.sum(0).tolist()) if w == 0]
        which = f"; of {silent} no arm and control have reported together" if silent else ""
        why = f"no candidate has evidence on every metric yet{which}"
        return ModelState(bucket, problem, view, None, why, prior=prior)
    rows = view[bucket.tested[view]]
    # A plan may settle a block, which moves evidence without any message.
    facts = (history.num_messages, history.status.version, len(bucket.control_loadings))
    key = (*facts, config, tuple(rows.tolist()))
    if key not in learnt.fit:
        learnt.fit.clear()
        learnt.fit[key] = _fit(problem, config, bucket, rows, history, device, prior, learnt.memo)
    fit = learnt.fit[key]
    return ModelState(
        bucket, problem, view, fit.posterior, fit.why_not, hours, learnt.memo, prior, fit.judgement
    )


def prior_of(
    problem: Problem, config: TunerConfig, history: History, learnt: FitCache
) -> Prior | None:
    """What other domains tell of this one; None where the journal names no source."""
    key = (history.status.version, config.transfer)
    if key not in learnt.prior:
        learnt.prior.clear()
        sources, said = recorded(history), overruled(history)
        learnt.prior[key] = Prior(problem, sources, said, config.transfer) if sources else None
    return learnt.prior[key]


def _fit(
    problem: Problem,
    config: TunerConfig,
    bucket: Bucket,
    rows: Tensor,
    history: History,
    device: torch.device,
    prior: Prior | None,
    memo: Memo,
) -> Fit:
    start = None
    if history.warm_start is not None:
        fields = {
            name: torch.tensor(value, dtype=torch.float64, device=device)
            for name, value in history.warm_start.items()
        }
        start = Hyperparameters(**fields)
    try:
        cold = Surrogate(start).fit(*to_fit(problem, config, bucket, rows, device))
    except FitError as error:
        return Fit(None, f"the fit failed: {error}")
    if prior is None:
        return Fit(cold, None)
    looks = _looks(config, bucket, history, memo) if prior.looks else None
    judgement = prior.judge(cold, looks, _staked(history) if prior.looks else None)
    return Fit(judgement.posterior, None, judgement)


def _looks(config: TunerConfig, bucket: Bucket, history: History, memo: Memo) -> dict[str, float]:
    """What this domain is like, by rounds that are not settled: their readings are always there."""
    _, live = blocks(history, pooling(config), memo)
    return features.of(history, config.rounds_per_day, bucket.dispersion, rounds=live)


def _staked(history: History) -> dict[str, float]:
    """How alike each source looked in the first plan that weighed it."""
    found: dict[str, float] = {}
    for plan in history.plans.values():
        for name, one in plan.details.get("transfer", {}).get("sources", {}).items():
            if "staked" in one:
                found.setdefault(name, float(one["staked"]))
    return found


def to_fit(
    problem: Problem, config: TunerConfig, bucket: Bucket, rows: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What a surrogate is fitted to: ``x``, ``mean``, ``var`` and ``shared`` of these candidates.

    With the base among them, whose delta is 0 by definition, where the configuration says so.
    """
    if config.anchor:
        rows = torch.cat([torch.tensor([CONTROL]), rows])
    x = problem.space.to_unit(bucket.theta[rows]).to(device)
    mean, var = bucket.mean[rows].to(device), bucket.var[rows].to(device)
    if config.anchor:
        mean[0], var[0] = 0.0, 0.0
    return x, mean, var, bucket.shared(rows).to(device) if config.shared_control else None
