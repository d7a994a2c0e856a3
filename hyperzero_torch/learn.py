"""From the history to what a round decides on: evidence, levels, and a fitted posterior."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .bucket import Bucket, gather
from .config import TunerConfig
from .errors import FitError
from .history import CONTROL, History
from .problem import Problem
from .surrogate import Hyperparameters, Posterior, Surrogate


class Known(NamedTuple):
    """What a round decides on: the bucket, the problem with its levels, and a fitted posterior.

    ``posterior`` is None, and ``why_not`` says why, as long as there is nothing to fit.
    ``level_hours`` counts the hours of the day that estimated base levels rest on; None where
    nobody has to estimate them.
    """

    bucket: Bucket
    problem: Problem
    posterior: Posterior | None
    why_not: str | None
    level_hours: int | None = None


#: The last fit, under the numbers of messages and of decisions about them, and the configuration.
FitCache: TypeAlias = dict[tuple[int, int, TunerConfig], tuple[Posterior | None, str | None]]


def learn(
    problem: Problem, config: TunerConfig, history: History, device: torch.device, fit: FitCache
) -> Known:
    """Fold the readings into evidence; fit where readings came since the cached fit."""
    bucket = gather(history, config.weights, config.rounds_per_day, config.calibrate)
    hours = bucket.level_hours if problem.sees_levels and problem.base_levels is None else None
    if problem.base_levels is None and bucket.base_levels is not None:
        problem = problem.with_base_levels(bucket.base_levels)
    if problem.sees_levels and problem.base_levels is None:
        return Known(bucket, problem, None, "the control has not reported every metric yet")
    tested = bucket.tested
    if not bool(tested.any()):
        silent = [m for m, w in zip(problem.metrics, bucket.weight.sum(0).tolist()) if w == 0]
        which = f"; of {silent} no arm and control have reported together" if silent else ""
        return Known(bucket, problem, None, f"no candidate has evidence on every metric yet{which}")
    key = (history.num_messages, history.standing.version, config)
    if key not in fit:
        fit.clear()
        fit[key] = _fit(problem, config, bucket, history, device)
    return Known(bucket, problem, *fit[key], hours)


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
    try:
        return Surrogate(start).fit(*to_fit(problem, config, bucket, device)), None
    except FitError as error:
        return None, f"the fit failed: {error}"


def to_fit(
    problem: Problem, config: TunerConfig, bucket: Bucket, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What a surrogate is fitted to: ``x``, ``mean``, ``var`` and ``shared`` of tested candidates.

    With the base among them, whose delta is 0 by definition, where the configuration says so.
    """
    rows = bucket.tested.nonzero().squeeze(-1)
    if config.anchor:
        rows = torch.cat([torch.tensor([CONTROL]), rows])
    x = problem.space.to_unit(bucket.theta[rows]).to(device)
    mean, var = bucket.mean[rows].to(device), bucket.var[rows].to(device)
    if config.anchor:
        mean[0], var[0] = 0.0, 0.0
    return x, mean, var, bucket.shared(rows).to(device) if config.shared_control else None
