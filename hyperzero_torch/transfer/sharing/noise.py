"""Differentially private sums of a domain's users.

    cell        one arm of one round (or of one package)
    u           a user's value, clipped to [low, high] and mapped to [-1, 1]
    released    per cell and metric: n, sum u, sum (u^2 - 1/2), each plus Gaussian noise

**The unit of privacy** is a user: the guarantee compares two populations that differ by one user.
**The contribution** of a user to a release is bounded: values are clipped, a user counts once in a
cell, and in at most ``max_contributions`` cells. **The sensitivity**, the largest L2 change of the
release that one user can cause, is

    sqrt(max_contributions * (counts + metrics * (1 + 1/4)))

with one count per cell, or one per metric if metrics count different users: |u| <= 1 and
|u^2 - 1/2| <= 1/2. The noise's standard deviation is ``noise_multiplier`` times that. Releases of
several rounds compose in the ``Budget``, where every round counts in full: a user may be in all.

Sums are integers on a fine grid and the noise is OpenDP's discrete Gaussian, which is exact and
uses the system's secure randomness: floating-point noise leaks through its lowest bits (Mironov,
2012).

Anything computed from a release costs no more privacy: the deltas, the evidence, a tuner's plans
(post-processing). A study that saw readings without noise chose its settings by them, so the list
of settings in a package is then outside the guarantee: tell the tuner the released readings, or
export settings that were fixed beforehand. Deltas cannot be noised directly: the effect of one user
on a ratio is not bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError, MissingExtraError
from ...stats import moments
from ...study.history import History
from ...study.journal import Configured, ReadingsReceived
from ...study.round_table import RoundTable
from .. import checks
from .budget import Budget
from .clipping import GRID, Clip, Sums, collect, from_moments

__all__ = [
    "Clip", "Noise", "Noised", "SimulatedNoise", "Sums", "check_private", "collect",
    "discrete_gaussian", "from_moments", "private_history", "release",
]  # fmt: skip

# A cell is used if its released count is at least this many standard deviations of its noise.
_USABLE = 5.0


class Noised(NamedTuple):
    """A release as readings: all ``(cells, metrics)``, in the metric's unit.

    ``var / count`` is the whole variance of ``mean``, from the users and from the noise;
    ``noise_var`` is the noise's part. ``count`` is 0 where the noise dominates. Deltas and evidence
    computed from these include the noise in their variances.
    """

    count: Tensor  # type: ignore[assignment]  # the field's name, over tuple.count
    mean: Tensor
    var: Tensor
    noise_var: Tensor


#: Adds noise of a standard deviation to integers of any shape.
Noise: TypeAlias = Callable[[Tensor, float], Tensor]


def discrete_gaussian(values: Tensor, scale: float) -> Tensor:
    """OpenDP's exact sampler, from the system's secure randomness.

    Raises:
        MissingExtraError: opendp is not installed.
    Source: Canonne, Kamath and Steinke (2020), the discrete Gaussian.
    """
    dp = _opendp()
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    mechanism = dp.m.make_gaussian(domain, dp.l2_distance(T="f64"), scale=scale)
    noised = mechanism(values.flatten().tolist()) if values.numel() else []
    return torch.tensor(noised, dtype=torch.int64).reshape(values.shape)


def _opendp() -> Any:
    try:
        import opendp.prelude as dp
    except ImportError:
        raise MissingExtraError("differentially private noise", "opendp", "privacy") from None
    dp.enable_features("contrib")
    return dp


@dataclass(frozen=True)
class SimulatedNoise:
    """Reproducible Gaussian noise: for simulations, never for real users."""

    generator: torch.Generator

    def __call__(self, values: Tensor, scale: float) -> Tensor:
        """Noised integers."""
        normal = torch.randn(values.shape, generator=self.generator, dtype=torch.float64)
        return values + (scale * normal).round().long()


def release(
    sums: Sums,
    budget: Budget,
    what: str,
    noise_multiplier: float,
    noise: Noise = discrete_gaussian,
) -> Noised:
    """Add noise to the sums once, after charging the budget.

    To second order in the noise the released means are unbiased for the cells' means of clipped
    values. All cells share one variance of users, estimated from all of them together.

    Args:
        sums: from ``collect`` or ``from_moments``.
        budget: is charged before any noise is drawn.
        what: name of the release in the ledger, e.g. ``"feed/round 17"``.
        noise_multiplier: standard deviation of the noise over the sensitivity.
    Raises:
        InputError: deltas instead of sums.
        BudgetError: the budget does not suffice; nothing was released.
    """
    checks.expect(sums, Sums, "Sums of clipped contributions (deltas cannot be made private)")
    _check_payable(budget, noise)
    budget.charge(what, noise_multiplier)
    return _drawn(sums, noise_multiplier, noise)


def _check_payable(budget: Any, noise: Any) -> None:
    """Refuse noise that cannot be drawn before the budget is charged."""
    checks.expect(budget, Budget, "a Budget to charge")
    if not callable(noise):
        raise InputError(f"expected noise(values, scale), got {type(noise).__name__}")
    if noise is discrete_gaussian:
        _opendp()


def _drawn(sums: Sums, noise_multiplier: float, noise: Noise) -> Noised:
    """Noised once, as readings; the caller has charged the budget."""
    scale = noise_multiplier * sums.sensitivity
    parts = [sums.count, sums.first, sums.second]
    noised = noise(torch.cat(parts, dim=1), scale).double() / GRID
    count, first, second = torch.split(noised, [p.shape[1] for p in parts], dim=1)
    return _as_readings(count.expand_as(first), first, second, sums.clips, (scale / GRID) ** 2)


def private_history(
    history: History,
    clips: Mapping[str, Clip],
    budget: Budget,
    name: str,
    noise_multiplier: float,
    noise: Noise = discrete_gaussian,
) -> History:
    """A study with every round's readings noised: the same candidates and plans, without reasons.

    Each round is one release, ``"<name>/round <t>"``; a user is assumed to be in one arm of each
    round, and in every round. Excluded rounds are left out, and rounds whose readings were
    compacted. Evidence pooled from the result includes the noise in its variances.

    Args:
        history: of readings that the platform made of values clipped to ``clips``.
        budget: is charged for all rounds in one step before any noise is drawn, or for none.
        name: of the study, for the ledger.
        noise_multiplier: of each round's release.
    Raises:
        InputError: a metric without bounds, readings that contradict them, or no readings.
        BudgetError: a budget that does not suffice for all rounds.
    """
    _check_payable(budget, noise)
    sums = _sums(history, clips, name)
    budget.charge_all([_release(name, r) for r in sums], noise_multiplier)
    private = History(history.num_params, history.metrics)
    private.extend([Configured(history.config), *history.candidates])
    for r, whole in sums.items():
        noised = _drawn(whole, noise_multiplier, noise)
        # The details of a plan depend on the readings without noise.
        plan = replace(history.plans[r], details={}, trigger=None)
        private.extend([plan, _received(r, history.tables[r], noised)])
    return private


def check_private(
    history: History,
    clips: Mapping[str, Clip],
    budget: Budget,
    name: str,
    noise_multiplier: float | None = None,
) -> tuple[float, float]:
    """The noise of ``private_history`` and epsilon after it, if it is possible; nothing is spent.

    Args:
        history, clips, budget, name: as for ``private_history``.
        noise_multiplier: of each round's release; None for the smallest that fits.
    Raises:
        InputError, BudgetError, MissingExtraError: as ``private_history`` does.
    """
    _check_payable(budget, discrete_gaussian)
    names = [_release(name, r) for r in _sums(history, clips, name)]
    if noise_multiplier is None:
        noise_multiplier = budget.noise_multiplier_for(len(names))
    return noise_multiplier, budget.check(names, noise_multiplier)


def _release(name: str, round_: int) -> str:
    return f"{name}/round {round_}"


def _sums(history: History, clips: Mapping[str, Clip], name: str) -> dict[int, Sums]:
    """The sums of each round that counts."""
    checks.expect(history, History, "a study's history, such as tuner.history")
    checks.expect(clips, Mapping, "a mapping from the study's metrics to their Clip")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"the study needs a name for the ledger, got {checks.brief(name)}")
    if missing := [m for m in history.metrics if m not in clips]:
        raise InputError(f"clips must bound every metric, missing {missing}")
    if unknown := [m for m in clips if m not in history.metrics]:
        raise InputError(f"clips bound {unknown}, the metrics are {list(history.metrics)}")
    bounds = [clips[m] for m in history.metrics]
    excluded = history.status.excluded_rounds
    tables = [(r, t) for r, t in sorted(history.tables.items()) if r not in excluded]
    if not tables:
        raise InputError(f"study {name!r} has no rounds with readings")
    return {r: from_moments(_moments_of(table), bounds) for r, table in tables}


def _moments_of(table: RoundTable) -> moments.Moments:
    columns = [table.counted(name) for name in ("count", "mean", "var")]
    reported = np.isfinite(columns[0]) & (columns[0] > 0)
    return moments.from_sample(*(torch.from_numpy(np.where(reported, c, 0.0)) for c in columns))


def _received(round_: int, table: RoundTable, noised: Noised) -> ReadingsReceived:
    arms, metrics = noised.mean.shape
    num = arms * metrics
    return ReadingsReceived(
        round=(round_,) * num,
        candidate=tuple(np.repeat(table.candidates, metrics).tolist()),
        metric=tuple(range(metrics)) * arms,
        revision=(0,) * num,
        count=tuple(noised.count.flatten().tolist()),
        mean=tuple(noised.mean.flatten().tolist()),
        var=tuple(noised.var.flatten().tolist()),
    )


def _as_readings(
    count: Tensor, first: Tensor, second: Tensor, clips: Sequence[Clip], noise_var: float
) -> Noised:
    """From noised sums to means and their variances: post-processing, without privacy cost."""
    usable = count > _USABLE * math.sqrt(noise_var)
    n = torch.where(usable, count, 1.0)
    # E[1 / count] exceeds 1 / n by noise_var / n^2, relatively.
    u = torch.where(usable, first / n * (1 - noise_var / n.square()), 0.0).clamp(-1.0, 1.0)
    error = noise_var * (1 + u.square()) / n.square()
    total = torch.where(usable, n, 0.0).sum(0)
    safe = total.clamp_min(1.0)
    square = torch.where(usable, second + n / 2, 0.0).sum(0) / safe
    between = torch.where(usable, n * (u.square() - error), 0.0).sum(0) / safe
    within = square - between
    most = 1 - between.clamp(0.0, 1.0)
    # Without a usable estimate, the largest variance that the bounds allow.
    within = torch.where(within > 0, torch.minimum(within, most), most)
    low, high = torch.tensor(clips, dtype=torch.float64).unbind(-1)
    half = (high - low) / 2
    zero = torch.zeros_like(n)
    return Noised(
        torch.where(usable, n, zero),
        torch.where(usable, low + half * (1 + u), zero),
        torch.where(usable, half.square() * (within + n * error), zero),
        torch.where(usable, half.square() * error, torch.inf),
    )
