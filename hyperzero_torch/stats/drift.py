"""Drift detection: new deltas against their predictions.

Where the posterior and the noise are correct, each new delta differs from its prediction by a
standard normal number of predictive standard deviations (posterior + new noise), independent of
earlier rounds. Drift makes these residuals z larger, or shifts them. Bets against "no drift": in
each round a factor e, with mean 1 at most while the z are independent, with mean 0 and variance 1
(n deltas of a metric in the round, products over its arms):

    spread s   prod exp(z^2 (1 - 1/s^2) / 2) / s     lifts changed independently
    shift k    exp(k m - k^2 / 2), m = sum z / sqrt(n)     all lifts changed together
    own c      prod exp(b z - b^2 / 2), b = c x the arm's decayed sum of earlier z: changes persist

A bet placed in round 1 has lost much before a late drift begins. So a bet starts in every round,
and two sums over the starting rounds are updated, each a single number:

    detector   D_t = (D_{t-1} + 1) e_t      alarm at D >= 1 / alpha. A false one comes after 1 /
                                            alpha rounds or more on average, and within T rounds
                                            with probability alpha T at most
    process    E_t = (E_{t-1} + w_t) e_t    w_t = 1 / (t (t + 1)) sum to 1, E starts at 1 in all:
                                            a false alarm *ever*, at E >= 1 / alpha, has
                                            probability alpha at most (Ville)

The detector is for a continuous loop (``restart`` it after an alarm); the process, which is slower
the later the drift, is for a single decision on a study. Each is for one metric: for an alarm on
any of n metrics, divide alpha by n.

Arms of a round share their control and their posterior, so their residuals are correlated, and a
product over arms would count one error several times: ``whiten`` them first with their predictive
covariance. Noise larger than claimed counts as drift (the posterior is overconfident), so variances
of deltas include their dispersion; ``tolerance`` allows for more.

Source: Shin, Ramdas and Rinaldo (2024), e-detectors (Shiryaev-Roberts form, mixtures of bets);
    Ramdas, Gruenwald, Vovk and Shafer (2023), e-processes; Waudby-Smith and Ramdas (2024), betting;
    Dawid (1984), prequential residuals.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError

# Alternatives: standard deviations of the residuals under drift, ...
SPREADS = (1.1, 1.3, 2.0, 4.0)
# ... shifts of their scaled sum m, ...
SHIFTS = (-1.5, -0.5, 0.5, 1.5)
# ... and the share c of an arm's decayed sum of earlier residuals that is expected again: the
# posterior mean of a normal shift of standard deviation 0.2 or 0.6 after ten residuals.
OWN = (0.03, 0.08)
# Weight of a residual relative to the next one: a memory of about ten.
DECAY = 0.9
# The largest b, so that an outlier is not bet on as drift.
_MOST = 0.5
# Stakes: a quarter on spreads, a quarter on shifts, half on own, which detects lifts that change
# independently in two thirds of the time of the others.
STAKES = (
    *[0.25 / len(SPREADS)] * len(SPREADS),
    *[0.25 / len(SHIFTS)] * len(SHIFTS),
    *[0.5 / len(OWN)] * len(OWN),
)


class DriftState(NamedTuple):
    """Logarithms of the sums over starting rounds, stakes included, and each arm's memory.

    ``detector`` and ``process`` ``(*batch, bets, metrics)``; ``num_rounds`` ``(*batch, metrics)``,
    rounds with a residual; ``memory`` ``(*batch, arms, metrics)``, each arm's decayed sum of z.
    """

    detector: Tensor
    process: Tensor
    num_rounds: Tensor
    memory: Tensor


def init(
    *shape: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> DriftState:
    """No residuals yet. ``shape`` is ``(*batch, arms, metrics)``: a row for every candidate."""
    *batch, _, metrics = shape
    empty = torch.full((*batch, len(STAKES), metrics), -torch.inf, dtype=dtype, device=device)
    num_rounds = torch.zeros(*batch, metrics, dtype=dtype, device=device)
    memory = torch.zeros(shape, dtype=dtype, device=device)
    return DriftState(empty, empty.clone(), num_rounds, memory)


def grow(state: DriftState, num_arms: int) -> DriftState:
    """The same with rows for ``num_arms`` candidates, the new ones without residuals.

    Raises:
        ShapeError: the state has more rows already.
    """
    more = num_arms - state.memory.shape[-2]
    if more < 0:
        raise ShapeError(
            f"a drift state of {state.memory.shape[-2]} arms cannot shrink to {num_arms}"
        )
    return state._replace(memory=torch.nn.functional.pad(state.memory, (0, 0, 0, more)))


def restart(state: DriftState, where: Tensor) -> DriftState:
    """Reset the metrics in ``where``, bool ``(*batch, metrics)``, after an alarm.

    The guarantees hold again from this round.
    """
    here = where.unsqueeze(-2)
    return DriftState(
        torch.where(here, -torch.inf, state.detector),
        torch.where(here, -torch.inf, state.process),
        torch.where(where, 0.0, state.num_rounds),
        torch.where(here, 0.0, state.memory),
    )


def predictive_covariance(belief: Tensor, var: Tensor, loading: Tensor) -> Tensor:
    """Covariance of a round's residuals: the posterior's, and that of the new deltas.

        belief + diag(var - loading^2) + loading loading'

    Args:
        belief: ``(*batch, metrics, arms, arms)``, the posterior's over the round's arms.
        var: ``(*batch, arms, metrics)``, of the new deltas, with their dispersion.
        loading: same shape, their loading on the control's error (``delta.control_loading``), with
            the root of the dispersion.
    Returns:
        ``(*batch, metrics, arms, arms)``.
    """
    var, loading = var.mT, loading.mT
    shared = loading.unsqueeze(-1) * loading.unsqueeze(-2)
    return belief + (var - loading.square()).diag_embed() + shared


def whiten(residual: Tensor, covariance: Tensor) -> Tensor:
    """Standardised residuals, each without the part that earlier arms explain.

        L^-1 residual        with covariance = L L'

    Args:
        residual: ``(*batch, arms, metrics)``, new delta minus prediction; NaN is no residual.
        covariance: ``(*batch, metrics, arms, arms)``; ignored where the residual is NaN.
    Returns:
        ``(*batch, arms, metrics)``, independent and standard normal without drift; NaN where there
        is no residual, and for the metrics whose covariance is not positive definite.
    Raises:
        ShapeError: shapes, dtypes or devices do not fit.
    """
    arms, metrics = residual.shape[-2:]
    if covariance.shape[-3:] != (metrics, arms, arms):
        raise ShapeError(
            f"residuals {tuple(residual.shape)} expect a covariance (*batch, {metrics}, {arms}, "
            f"{arms}), got {tuple(covariance.shape)}"
        )
    if (residual.dtype, residual.device) != (covariance.dtype, covariance.device):
        raise ShapeError(
            f"one dtype and device are expected, got {residual.dtype} on {residual.device} and "
            f"{covariance.dtype} on {covariance.device}"
        )
    transposed = residual.mT
    valid = transposed.isfinite()
    both = valid.unsqueeze(-1) & valid.unsqueeze(-2)
    # Scaled to correlations, since variances may be near 1e-8. A missing arm gets a unit vector.
    scale = torch.where(valid, covariance.diagonal(dim1=-2, dim2=-1), 1.0).sqrt()
    unit = torch.eye(arms, dtype=residual.dtype, device=residual.device)
    scaled = covariance / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    factor, info = torch.linalg.cholesky_ex(torch.where(both, scaled, unit))
    right = torch.where(valid, transposed / scale, 0.0).unsqueeze(-1)
    whitened = torch.linalg.solve_triangular(factor, right, upper=False).squeeze(-1)
    return torch.where(valid & (info == 0).unsqueeze(-1), whitened, torch.nan).mT


def update(
    state: DriftState,
    z: Tensor,
    mask: Tensor | None = None,
    tolerance: float = 1.0,
    most: float = math.inf,
) -> DriftState:
    """Add one round of residuals.

    Args:
        state: before the round; not changed.
        z: ``(*batch, arms, metrics)``, the state's arms, standardised and independent within the
            round (``whiten``). Values that are not finite are left out: arms that were not served
            are NaN. A metric without any keeps its state.
        mask: bool, broadcastable to ``z``, False where a residual is to be left out too.
        tolerance: variance of z that does not count as drift, 1 or more.
        most: upper limit of one round's factor, above 1, so that one extreme round is no drift;
            the guarantees hold with any limit.
    Returns:
        The new state.
    Raises:
        ConfigError: a tolerance below 1, or a limit that is not above 1.
        ShapeError: ``z`` does not fit the state.
    """
    if not 1 <= tolerance < math.inf:
        raise ConfigError(f"tolerance must be a finite variance of 1 or more, got {tolerance!r}")
    if not most > 1:
        raise ConfigError(f"the limit of a round's factor must be above 1, got {most!r}")
    if z.shape != state.memory.shape:
        raise ShapeError(
            f"a drift state expects z (*batch, arms, metrics) of {tuple(state.memory.shape)}, got "
            f"{tuple(z.shape)}; see grow"
        )
    valid = z.isfinite() if mask is None else z.isfinite() & mask
    z = torch.where(valid, z, 0.0) / math.sqrt(tolerance)
    log_e = log_bets(z, valid, state.memory).clamp_max(math.log(most))
    seen = valid.any(-2)
    here = seen.unsqueeze(-2)
    num_rounds = state.num_rounds + seen
    stake = _stakes(z)
    late = stake - (num_rounds * (num_rounds + 1)).log().unsqueeze(-2)
    return DriftState(
        torch.where(here, torch.logaddexp(state.detector, stake) + log_e, state.detector),
        torch.where(here, torch.logaddexp(state.process, late) + log_e, state.process),
        num_rounds,
        torch.where(valid, DECAY * state.memory + z, state.memory),
    )


def log_detector(state: DriftState) -> Tensor:
    """log D over all bets, ``(*batch, metrics)``; -inf before the first round."""
    return state.detector.logsumexp(-2)


def log_process(state: DriftState) -> Tensor:
    """log E over all bets, ``(*batch, metrics)``; at least the stakes not yet placed."""
    waiting = -(state.num_rounds + 1).log()  # 1 - sum of w so far: what later rounds will place
    return torch.logaddexp(state.process.logsumexp(-2), waiting)


def alarm(state: DriftState, alpha: float) -> Tensor:
    """Drift, by the detector: bool ``(*batch, metrics)``; false once in 1 / alpha rounds or more.

    Raises:
        ConfigError: ``alpha`` outside (0, 1).
    """
    return log_detector(state) >= -_log(alpha)


def drifted(state: DriftState, alpha: float) -> Tensor:
    """Drift, by the process: bool ``(*batch, metrics)``; false *ever* with probability alpha.

    Raises:
        ConfigError: ``alpha`` outside (0, 1).
    """
    return log_process(state) >= -_log(alpha)


def _log(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha must lie in (0, 1), got {alpha!r}")
    return math.log(alpha)


def log_bets(z: Tensor, valid: Tensor, memory: Tensor) -> Tensor:
    """log e of each bet on one round; e has mean 1 where the valid z are standard normal.

    Args:
        z: ``(*batch, arms, metrics)``, standard scores; 0 where they are not valid.
        valid: bool, the same shape: which of them are evidence.
        memory: ``(*batch, arms, metrics)``, discounted sums of each arm's earlier scores.
    Returns:
        ``(*batch, bets, metrics)``, in the order of ``STAKES``; of no meaning where a metric has
        no valid arm.
    """
    num = valid.sum(-2, keepdim=True).to(z.dtype)
    square = z.square().sum(-2, keepdim=True)
    together = z.sum(-2, keepdim=True) / num.clamp_min(1).sqrt()
    log_e = [(1 - s**-2) / 2 * square - num * math.log(s) for s in SPREADS]
    log_e += [k * together - k**2 / 2 for k in SHIFTS]
    for c in OWN:
        b = torch.where(valid, (c * memory).clamp(-_MOST, _MOST), 0.0)
        log_e.append((b * z - b.square() / 2).sum(-2, keepdim=True))
    return torch.cat(log_e, dim=-2)


def _stakes(like: Tensor) -> Tensor:
    """log of ``STAKES``, ``(bets, 1)``, made on the device of ``like`` without a copy."""
    return torch.stack([like.new_full((1,), math.log(stake)) for stake in STAKES])
