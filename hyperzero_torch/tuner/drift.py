"""Has the world moved? New deltas against what was believed of them before they came.

Each round, when it has reported, is compared with the posterior of the rounds before it. The
residuals feed a detector per metric, whose false alarms are rarer than one in ``1 / drift_alpha``
rounds. At an alarm old evidence is discounted, not thrown away, and the detector starts again.

What the detector remembers is kept in the plans' details, so that it goes on after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import FitError
from ..stats import drift
from ..study.config import TunerConfig
from ..study.decisions import DRIFT, ROLLED_BACK
from ..study.evidence.bucket import gather
from ..study.evidence.pooling import ArmDeltas
from ..study.history import History
from ..study.journal import Decision
from ..surrogate import Hyperparameters, Posterior, Surrogate
from .model import ModelState, pooling, to_fit

# A round is compared when every arm has reported, or so many rounds later with those that have.
_LATE = 6
# Rounds compared in one go; more wait for the next plan.
_MOST = 8
# Rounds that are not compared: so long the noise is not known well enough to say what is odd.
_FIRST = 6
# What one round alone may multiply the detector by: one wild hour is an incident, not drift.
_ONE_ROUND = 20.0
# Noise is estimated, and posteriors are plug-in: variance of residuals that is still no drift.
_TOLERANCE = 1.3
# What is left of the precision of the evidence before an alarm.
_KEPT = 0.25


class DriftUpdate(NamedTuple):
    """What to write beside a plan, None for nothing, and alarms."""

    details: dict[str, Any] | None
    alarms: list[Decision]


def watch(known: ModelState, config: TunerConfig, history: History, round: int) -> DriftUpdate:
    """Compare the rounds that have reported since the last plan with what was believed before."""
    if config.drift_alpha is None or known.posterior is None:
        return DriftUpdate(None, [])
    state, next_ = _read(_last_told(history), len(history.metrics), history.num_candidates)
    alarms: list[Decision] = []
    first = set(sorted(history.plans)[:_FIRST])
    for _ in range(_MOST):
        at = _next(history, next_, round)
        if at is None or not _reported(history, at, round):
            break
        next_ = at + 1
        z = None if at in first else _residuals(known, config, history, at)
        if z is None:
            continue
        state = drift.update(state, z, tolerance=_TOLERANCE, most=_ONE_ROUND)
        # A candidate that is not served is forgotten; what is remembered of the others is rounded,
        # since it is written into every plan.
        served = z.isfinite().any(-1, keepdim=True)
        memory = torch.where(served, (1000 * state.memory).round() / 1000, 0.0)
        state = state._replace(memory=memory)
        drifting = drift.alarm(state, config.drift_alpha / len(history.metrics))
        if bool(drifting.any()):
            alarms.append(_alarm(history, at, drifting.nonzero().flatten().tolist(), round))
            state = drift.restart(state, drifting)
            break  # further rounds are compared with the discounted evidence, after the next plan
    return DriftUpdate(_written(state, next_), alarms)


def _last_told(history: History) -> Mapping[str, Any] | None:
    """What the last plan remembers that was not rolled back."""
    undone = {
        r
        for d in history.decisions
        if d.kind == ROLLED_BACK
        for r in range(d.details["to_round"], d.round + 1)
    }
    told = (p.details.get("drift") for r, p in reversed(history.plans.items()) if r not in undone)
    return next((one for one in told if one is not None), None)


def _next(history: History, first: int, now: int) -> int | None:
    """The first round from ``first`` on, and before ``now``, whose readings are still there."""
    return min((r for r in history.tables if first <= r < now), default=None)


def _reported(history: History, at: int, now: int) -> bool:
    return history.tables[at].num_waiting == 0 or at <= now - _LATE


def _residuals(known: ModelState, config: TunerConfig, history: History, at: int) -> Tensor | None:
    """Whitened residuals of one round, ``(candidates, metrics)``; NaN for who was not served."""
    deltas = known.bucket.deltas
    rows = (deltas.round == at).nonzero().flatten()
    if not len(rows):
        return None
    belief = _believed_before(known, config, history, at)
    if belief is None:
        return None
    candidates = deltas.candidate[rows]
    x = known.problem.space.to_unit(history.theta[candidates])
    mean, _ = belief.marginal(x)
    covariance = drift.predictive_covariance(
        belief.covariance(x), deltas.delta.var[rows], _loading(deltas, rows)
    )
    z = torch.full((history.num_candidates, len(history.metrics)), torch.nan, dtype=mean.dtype)
    z[candidates] = drift.whiten(deltas.delta.mean[rows] - mean, covariance)
    return z


def _loading(deltas: ArmDeltas, rows: Tensor) -> Tensor:
    """The shared part of the errors; never more than all of them, after rounding."""
    return deltas.loading[rows].minimum(deltas.delta.var[rows].sqrt())


def _believed_before(
    known: ModelState, config: TunerConfig, history: History, at: int
) -> Posterior | None:
    """The posterior of the rounds before, under today's hyperparameters; on the CPU."""
    before = history.branch()
    before.tables = {r: t for r, t in history.tables.items() if r < at}
    bucket = gather(before, pooling(config), known.memo)
    rows = known.view[bucket.tested[known.view]]
    cold = known.cold
    if not len(rows) or cold is None:
        return None
    hyperparameters = Hyperparameters(*(f.cpu() for f in cold.hyperparameters))
    given = to_fit(known.problem, config, bucket, rows, torch.device("cpu"))
    try:
        return Surrogate(hyperparameters).condition(*given)
    except FitError:
        return None


def _alarm(history: History, at: int, metrics: list[int], now: int) -> Decision:
    names = [history.metrics[m] for m in metrics]
    reason = (
        f"deltas of {names} in round {at} and before it do not fit what was believed: the world "
        f"has moved; evidence from before round {at} counts {_KEPT:g} of its precision from now on"
    )
    return Decision(now, DRIFT, reason, {"metrics": metrics, "before": at, "factor": _KEPT})


def _read(
    told: Mapping[str, Any] | None, num_metrics: int, num_candidates: int
) -> tuple[drift.DriftState, int]:
    """The detector as a plan's details have it, and the next round to compare."""
    state = drift.init(num_candidates, num_metrics)
    if told is None:
        return state, 0
    memory = state.memory
    for candidate, sums in told["memory"].items():
        memory[int(candidate)] = torch.tensor(sums, dtype=torch.float64)
    detector = torch.tensor(
        [[-torch.inf if v is None else v for v in row] for row in told["detector"]],
        dtype=torch.float64,
    )
    num_rounds = torch.tensor(told["num_rounds"], dtype=torch.float64)
    return drift.DriftState(detector, state.process, num_rounds, memory), int(told["next"])


def _written(state: drift.DriftState, next_: int) -> dict[str, Any]:
    kept = (state.memory != 0).any(-1).nonzero().flatten().tolist()
    detector = [
        [round(v, 6) if v > -torch.inf else None for v in row] for row in state.detector.tolist()
    ]
    return {
        "next": next_,
        "detector": detector,
        "num_rounds": state.num_rounds.tolist(),
        "memory": {str(c): state.memory[c].tolist() for c in kept},
    }
