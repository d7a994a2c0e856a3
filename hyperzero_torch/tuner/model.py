"""History -> evidence, base levels, and a fitted posterior where there is evidence to fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from ..errors import FitError
from ..problem.problem import Problem
from ..study.config import TunerConfig
from ..study.evidence.active_set import fit_set
from ..study.evidence.blocks import BlockCache, blocks
from ..study.evidence.bucket import Bucket
from ..study.evidence.pooling import Pooling
from ..study.history import CONTROL, History
from ..surrogate import Hyperparameters, Posterior, Surrogate
from ..surrogate.foreign import ForeignSurrogate
from ..surrogate.protocol import FittedPosterior
from ..transfer import features
from ..transfer.journaled import current_override, recorded
from ..transfer.prior import Judgement, Prior
from .fit_cache import Fit, FitCache, evidence_of


@dataclass(frozen=True, eq=False)
class _Evidence:
    """The evidence of a study, with or without a fitted model.

    ``problem`` has its base levels where they are known or can be estimated. ``fit_set (n,)`` are
    the candidates that a fit takes in, ``cache`` holds the settled blocks behind the bucket.
    ``level_hours`` counts the hours of the day that estimated base levels rest on; None where
    nothing sees levels or the platform knows them. ``prior`` is what other domains have measured;
    None without sources.
    """

    bucket: Bucket
    problem: Problem
    fit_set: Tensor
    cache: BlockCache
    prior: Prior | None
    level_hours: int | None


@dataclass(frozen=True, eq=False)
class Unfitted(_Evidence):
    """There is no posterior; ``why_not`` says why."""

    why_not: str
    posterior: ClassVar[None] = None
    judgement: ClassVar[None] = None


@dataclass(frozen=True, eq=False)
class Fitted(_Evidence):
    """A posterior, and the fit's ``judgement`` on other domains, None without sources.

    ``remark`` says why the default model was fitted instead of the study's own surrogate.
    """

    posterior: FittedPosterior
    judgement: Judgement | None
    remark: str | None = None
    why_not: ClassVar[None] = None

    @property
    def cold(self) -> FittedPosterior:
        """The posterior of the study's own evidence alone."""
        return self.posterior if self.judgement is None else self.judgement.cold

    @property
    def uses_sources(self) -> bool:
        """Whether the posterior includes evidence of other domains."""
        return self.judgement is not None and self.judgement.used

    @cached_property
    def fitted_problem(self) -> Problem:
        """The problem on the posterior's device; a module that has to move is copied once."""
        return self.problem.to(self.posterior.device)

    def to_unit(self, theta: Tensor) -> Tensor:
        """Points of the unit cube ``(n, dims)``, in the posterior's dtype and on its device."""
        return self.problem.space.to_unit(theta).to(self.posterior.x)


ModelState: TypeAlias = Unfitted | Fitted
# Up to so many candidates the model is fitted on the CPU, whatever the device: a fit is hundreds of
# small steps, each of which would wait for a card. The posterior then moves to the device.
_MOST_ON_CPU = 256
_Data: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor | None]


def update_model(
    problem: Problem,
    config: TunerConfig,
    history: History,
    device: torch.device,
    cache: FitCache,
    surrogate: ForeignSurrogate | None = None,
    broken: str | None = None,
) -> ModelState:
    """Pool the readings into evidence, and fit where readings came since the last fit.

    Args:
        problem: of the study.
        config: how it pools and fits.
        history: the study's facts.
        device: where to fit.
        cache: of this study; what is new is added.
        surrogate: the study's, where it is not the package's own.
        broken: why it must not be used now.
    """
    bucket = evidence_of(history, config, cache)
    needed = problem.level_metrics.any(0)
    hours = None
    if problem.sees_levels and problem.base_levels is None and bucket.hours_by_metric is not None:
        hours = int(bucket.hours_by_metric[needed].min())
    if problem.base_levels is None and bucket.levels_by_metric is not None:
        # A metric whose level nothing depends on may be silent.
        problem = problem.with_base_levels(bucket.levels_by_metric)
    used = problem.used_metrics
    candidates = fit_set(history, bucket, config, used)
    prior = _prior_of(problem, history, cache)
    evidence = (bucket, problem, candidates, cache.blocks, prior)
    if not problem.levels_known:
        return Unfitted(*evidence, hours, "the control has not reported every metric yet")
    has_evidence = bucket.has_evidence(used)
    if not bool(has_evidence.any()):
        weights = zip(problem.metrics, bucket.weight.sum(0).tolist(), used.tolist())
        silent = [m for m, weight, is_used in weights if is_used and weight == 0]
        which = f"; of {silent} no arm and control have reported together" if silent else ""
        why_not = f"no candidate has evidence on every metric yet{which}"
        return Unfitted(*evidence, hours, why_not)
    rows = candidates[has_evidence[candidates]]
    # A plan may settle a block, which changes evidence without any message.
    facts = (history.num_messages, history.status.version, len(bucket.control_loadings))
    key = (*facts, config, tuple(rows.tolist()), broken)
    if key not in cache.fit:
        cache.fit.clear()
        on_cpu = surrogate is None and len(rows) <= _MOST_ON_CPU
        at = torch.device("cpu") if on_cpu else device
        data = training_data(problem, config, bucket, rows, at)
        own = None if surrogate is None else surrogate.bound(problem)
        foreign, broken = _fit_foreign(own, data, prior_std(problem, config), broken)
        if foreign is None:
            foreign = _fit(problem, config, bucket, data, history, prior, cache.blocks, device)
            foreign = foreign._replace(remark=broken)
        cache.fit[key] = foreign
    fit = cache.fit[key]
    if fit.posterior is None:
        return Unfitted(*evidence, hours, fit.why_not or "")
    return Fitted(*evidence, hours, fit.posterior, fit.judgement, fit.remark)


def training_data(
    problem: Problem, config: TunerConfig, bucket: Bucket, rows: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The data of a fit: ``x``, ``mean``, ``var`` and ``shared`` of these candidates.

    With ``config.anchor`` the base is among them, whose delta is 0 by definition. Without, it is
    there for metrics alone of which there is no evidence, so that each metric has an observation.
    """
    silent = ~(bucket.weight[rows] > 0).any(0)
    fixed = torch.ones_like(silent) if config.anchor else silent
    if bool(fixed.any()):
        rows = torch.cat([torch.tensor([CONTROL]), rows])
    x = problem.space.to_unit(bucket.theta[rows])
    mean, var = bucket.mean[rows], bucket.var[rows]
    if bool(fixed.any()):
        mean[0, fixed], var[0, fixed] = 0.0, 0.0
    shared = bucket.shared(rows).to(device) if config.shared_control else None
    return x.to(device), mean.to(device), var.to(device), shared


def prior_std(problem: Problem, config: TunerConfig) -> Tensor | None:
    """Half of each metric's plausible lift, ``(metrics,)``, NaN for metrics without; None for all.

    Half, since 95 % of a normal distribution lie within two standard deviations.
    """
    if config.plausible_lift is None:
        return None
    lifts = dict(config.plausible_lift)
    stds = [0.5 * lifts.get(metric, math.nan) for metric in problem.metrics]
    return torch.tensor(stds, dtype=torch.float64)


def conditioned(
    problem: Problem,
    config: TunerConfig,
    bucket: Bucket,
    candidates: Tensor,
    fitted: FittedPosterior,
) -> FittedPosterior | None:
    """The posterior of a bucket's evidence under the hyperparameters of a fit, on the CPU.

    Args:
        problem: of the study.
        config: of the study.
        bucket: the evidence.
        candidates: ``(n,)``; those without evidence are left out.
        fitted: the fit; the package's own may be on any device.
    Returns:
        None where no candidate has evidence, or the covariance cannot be factorised.
    """
    rows = candidates[bucket.has_evidence(problem.used_metrics)[candidates]]
    if not len(rows):
        return None
    device = torch.device("cpu") if isinstance(fitted, Posterior) else fitted.device
    data = training_data(problem, config, bucket, rows, device)
    try:
        if not isinstance(fitted, Posterior):
            return fitted.condition(*data)
        start = Hyperparameters(*(field.cpu() for field in fitted.hyperparameters))
        return Surrogate(start, prior_std(problem, config)).condition(*data)
    except FitError:
        return None


def _fit_foreign(
    surrogate: ForeignSurrogate | None, data: _Data, std: Tensor | None, broken: str | None
) -> tuple[Fit | None, str | None]:
    """The fit of a surrogate that is not the package's own; or None, and a remark on why not."""
    if surrogate is None:
        return None, None
    if broken is None:
        try:
            return Fit(surrogate.fit(*data, prior_std=std), None), None
        except FitError as error:
            broken = str(error)
    text = surrogate.descriptor.text
    return None, f"surrogate {text} was not used: {broken}; the default model took its place"


def _prior_of(problem: Problem, history: History, cache: FitCache) -> Prior | None:
    """The prior from other domains; None where the journal has no source."""
    key = history.status.version
    if key not in cache.prior:
        cache.prior.clear()
        sources, override = recorded(history), current_override(history)
        cache.prior[key] = Prior(problem, sources, override) if sources else None
    return cache.prior[key]


def _fit(
    problem: Problem,
    config: TunerConfig,
    bucket: Bucket,
    data: _Data,
    history: History,
    prior: Prior | None,
    cache: BlockCache,
    device: torch.device,
) -> Fit:
    """The package's own model on a device, with what other domains add to it."""
    start = None
    if history.warm_start is not None:
        values = (getattr(history.warm_start, name) for name in Hyperparameters._fields)
        start = Hyperparameters(*(data[0].new_tensor(value) for value in values))
    try:
        surrogate = Surrogate(start, prior_std(problem, config))
        cold = surrogate.fit(*data)
    except FitError as error:
        return Fit(None, f"the fit failed: {error}")
    if prior is None:
        return Fit(cold.to(device), None)
    if not prior.has_features:
        judgement = prior.judge(cold)
    else:
        target_features = _target_features(config, bucket, history, cache)
        judgement = prior.judge(cold, target_features, _initial_similarity(history))
    judgement = judgement.to(device)
    return Fit(judgement.posterior, None, judgement)


def _target_features(
    config: TunerConfig, bucket: Bucket, history: History, cache: BlockCache
) -> dict[str, float]:
    """Features of this domain from rounds that are not settled, whose readings are always kept."""
    _, live = blocks(history, Pooling.of(config), cache)
    return features.of(history, config.rounds_per_day, bucket.dispersion, rounds=live)


def _initial_similarity(history: History) -> dict[str, float]:
    """How similar each source looked in the first plan that weighed it."""
    similarity: dict[str, float] = {}
    for plan in history.plans.values():
        transfer = plan.trace.transfer
        for name, source in ({} if transfer is None else transfer.sources).items():
            if source.initial_similarity is not None:
                similarity.setdefault(name, source.initial_similarity)
    return similarity
