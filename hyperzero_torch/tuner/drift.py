"""Drift: new deltas against what the model predicted for them.

Each round, once it has reported, is compared with the posterior of the rounds before it. The
residuals feed a detector per metric, whose false alarms are rarer than one in ``1 / drift_alpha``
rounds. After an alarm old evidence is discounted, not dropped, and the detector starts again.

The detector's state is kept in the plans' traces, so that it survives a restart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..stats import drift
from ..study.evidence.bucket import Bucket, gather
from ..study.evidence.pooling import Pooling
from ..study.history import History
from ..study.journal import Decision
from ..study.journal.trace import DetectorTrace, DriftFound, RolledBack
from ..surrogate.protocol import FittedPosterior
from .context import RoundContext
from .model import Fitted, conditioned

# A round is compared when all arms have reported, or this many rounds later with those that have.
_MAX_DELAY = 6
# Rounds compared per plan; further ones wait for the next plan.
_MAX_ROUNDS = 8
#: Number of first rounds that are not compared, because the noise is not estimated well yet.
NUM_WARM_UP = 6
# Limit of the factor by which one round can multiply the detector: one unusual hour is no drift.
_MAX_FACTOR = 20.0
# Noise is estimated and posteriors are plug-in: residuals of this variance are not drift.
_TOLERANCE = 1.3
# The fraction of its precision that evidence from before an alarm retains.
_RETAINED = 0.25


class DriftUpdate(NamedTuple):
    """The detector's new state, None where it is off or nothing is fitted; and alarms."""

    detector: DetectorTrace | None
    alarms: list[Decision]


def monitor(state: Fitted, context: RoundContext) -> DriftUpdate:
    """Compare rounds that have reported since the last plan with what was predicted for them."""
    config, history = context.config, context.history
    if config.drift_alpha is None:
        return DriftUpdate(None, [])
    detector, next_round = _read(_last_detector_state(history), history)
    alarms: list[Decision] = []
    warm_up = set(sorted(history.plans)[:NUM_WARM_UP])
    for _ in range(_MAX_ROUNDS):
        at = _next_with_readings(history, next_round, context.round)
        if at is None or not _has_reported(history, at, context.round):
            break
        next_round = at + 1
        z = None if at in warm_up else _round_residuals(state, context, at)
        if z is None:
            continue
        detector = drift.update(detector, z, tolerance=_TOLERANCE, most=_MAX_FACTOR)
        # Drop the sums of candidates that are not served and round the others, because every plan
        # stores them.
        served = z.isfinite().any(-1, keepdim=True)
        memory = torch.where(served, (1000 * detector.memory).round() / 1000, 0.0)
        detector = detector._replace(memory=memory)
        drifting = drift.alarm(detector, config.drift_alpha / len(history.metrics))
        if bool(drifting.any()):
            metrics = drifting.nonzero().flatten().tolist()
            alarms.append(_alarm(history, at, metrics, context.round))
            detector = drift.restart(detector, drifting)
            break  # later rounds are compared with the discounted evidence, after the next plan
    return DriftUpdate(_trace(detector, next_round), alarms)


def residuals(bucket: Bucket, posterior: FittedPosterior, x: Tensor, rows: Tensor) -> Tensor:
    """Whitened residuals of one round's deltas, ``(arms, metrics)``.

    Args:
        bucket: holds the deltas.
        posterior: of the rounds before, on the CPU.
        x: ``(arms, dims)`` where the arms are in the unit cube.
        rows: ``(arms,)`` of ``bucket.deltas``.
    """
    deltas = bucket.deltas
    mean, _ = posterior.marginal(x)
    var = deltas.delta.var[rows]
    # After rounding, the control's part of the error could exceed the whole.
    loading = deltas.loading[rows].minimum(var.sqrt())
    covariance = drift.predictive_covariance(posterior.covariance(x), var, loading)
    return drift.whiten(deltas.delta.mean[rows] - mean, covariance)


def before(history: History, round: int) -> History:
    """The same study with the readings of earlier rounds only."""
    earlier = history.branch()
    earlier.tables = {r: table for r, table in history.tables.items() if r < round}
    return earlier


def as_it_stood(history: History, round: int | None) -> History:
    """The rounds before one, with the drift noticed by then; None: all rounds, without drift."""
    then = history.branch() if round is None else before(history, round)
    then.status.discounts = tuple(
        d for d in then.status.discounts if round is not None and d.noticed < round
    )
    return then


def _last_detector_state(history: History) -> DetectorTrace | None:
    """The detector after the last plan that was not rolled back."""
    undone: set[int] = set()
    for decision in history.decisions:
        if isinstance(decision.trace, RolledBack) and decision.trace.to_round is not None:
            undone.update(range(decision.trace.to_round, decision.round + 1))
    states = (p.trace.drift for r, p in reversed(history.plans.items()) if r not in undone)
    return next((state for state in states if state is not None), None)


def _next_with_readings(history: History, first: int, now: int) -> int | None:
    """The first round from ``first`` on, and before ``now``, that keeps its readings."""
    return min((r for r in history.tables if first <= r < now), default=None)


def _has_reported(history: History, at: int, now: int) -> bool:
    return history.tables[at].num_waiting == 0 or at <= now - _MAX_DELAY


def _round_residuals(state: Fitted, context: RoundContext, at: int) -> Tensor | None:
    """Residuals of round ``at``, ``(candidates, metrics)``; NaN for those that were not served."""
    history, deltas = context.history, state.bucket.deltas
    rows = (deltas.round == at).nonzero().flatten()
    if not len(rows):
        return None
    earlier = gather(before(history, at), Pooling.of(context.config), state.cache)
    posterior = conditioned(state.problem, context.config, earlier, state.fit_set, state.cold)
    if posterior is None:
        return None
    candidates = deltas.candidate[rows]
    x = state.problem.space.to_unit(history.theta[candidates])
    whitened = residuals(state.bucket, posterior, x, rows)
    z = whitened.new_full((history.num_candidates, len(history.metrics)), torch.nan)
    z[candidates] = whitened
    return z


def _alarm(history: History, at: int, metrics: list[int], now: int) -> Decision:
    names = [history.metrics[m] for m in metrics]
    reason = (
        f"Drift: deltas of {names} up to round {at} do not fit the model of the rounds before; "
        f"evidence from before round {at} keeps {_RETAINED:g} of its precision from now on"
    )
    trace = DriftFound(metrics=tuple(metrics), before=at, factor=_RETAINED)
    return Decision.of(now, reason, trace)


def _read(trace: DetectorTrace | None, history: History) -> tuple[drift.DriftState, int]:
    """The detector as a plan's trace holds it, and the next round to compare."""
    state = drift.init(history.num_candidates, len(history.metrics))
    if trace is None:
        return state, 0
    memory = state.memory
    for candidate, sums in trace.memory.items():
        memory[candidate] = torch.tensor(sums, dtype=torch.float64)
    detector = torch.tensor(
        [[-torch.inf if v is None else v for v in row] for row in trace.detector],
        dtype=torch.float64,
    )
    num_rounds = torch.tensor(trace.num_rounds, dtype=torch.float64)
    return drift.DriftState(detector, state.process, num_rounds, memory), trace.next_round


def _trace(state: drift.DriftState, next_round: int) -> DetectorTrace:
    served = (state.memory != 0).any(-1).nonzero().flatten().tolist()
    return DetectorTrace(
        next_round=next_round,
        detector=tuple(
            tuple(round(v, 6) if v > -torch.inf else None for v in row)
            for row in state.detector.tolist()
        ),
        num_rounds=tuple(state.num_rounds.tolist()),
        memory={c: tuple(state.memory[c].tolist()) for c in served},
    )
