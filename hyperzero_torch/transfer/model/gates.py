"""The two gates between the sources and a plan, and the way back to the cold model.

Sources are admitted once their e-value is large enough (``betting``): uninformative sources are
ever admitted with probability at most ``ALPHA``, however often they are tested. After that, a
metric uses the transferred model as long as this predicts left-out evidence no worse than the cold
model does. While a gate is closed the plan is the cold model's plan, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ...study.journal.trace import HeldOutTrace
from ...surrogate import Posterior, leave_one_out_log_density
from .target import TargetFit

#: Probability that uninformative sources are ever admitted.
ALPHA = 0.05
# Nats by which the transferred model may predict a metric's left-out evidence worse. The cold model
# has a fitted lengthscale for every parameter, so a small deficit is no sign of a bad source.
_TOLERANCE = 3.0


class Admission(NamedTuple):
    """Whether sources are admitted, the log e-value ``needed`` for it, and a sentence."""

    admitted: bool
    needed: float
    reason: str


class HeldOut(NamedTuple):
    """Leave-one-out log densities of the target's evidence, ``(metrics,)``: ``warm``, ``cold``."""

    warm: Tensor
    cold: Tensor

    @property
    def better(self) -> Tensor:
        """Metrics that may use the transferred model, bool ``(metrics,)``."""
        return self.warm >= self.cold - _TOLERANCE

    @property
    def reason(self) -> str:
        """Why no metric uses the transferred model."""
        return (
            "the transferred model predicts left-out evidence worse than the cold model, by "
            f"{[round(v, 2) for v in (self.cold - self.warm).tolist()]} nats; the cold model is "
            "used"
        )

    def trace(self, metrics: Sequence[str]) -> dict[str, HeldOutTrace]:
        """The densities by metric, for the journal."""
        rows = zip(metrics, self.warm.tolist(), self.cold.tolist())
        return {
            name: HeldOutTrace(transferred=round(warm, 4), cold=round(cold, 4))
            for name, warm, cold in rows
        }


def admit(fit: TargetFit, alpha: float = ALPHA) -> Admission:
    """The first gate: is the e-value of the sources at least ``1 / alpha``?"""
    needed = -math.log(alpha)
    log_e_value = fit.scores.log_e_value
    if not bool((fit.loading[:, -1] > 0).any()):
        reason = "no source alone improves the prediction of this study's evidence"
        return Admission(False, needed, reason)
    e_value = math.exp(min(log_e_value, 50))
    if log_e_value < needed:
        reason = (
            f"the e-value of the sources is {e_value:.2g}; they are used once it reaches "
            f"{1 / alpha:g}"
        )
        return Admission(False, needed, reason)
    return Admission(True, needed, f"the e-value of the sources is {e_value:.3g}")


def compare(warm: Posterior, cold: Posterior) -> HeldOut:
    """The second gate: leave-one-out densities of the target's rows under both models."""
    num = len(cold.x)
    return HeldOut(held_out_log_density(warm, num), held_out_log_density(cold, num))


def held_out_log_density(posterior: Posterior, last: int) -> Tensor:
    """Log density of the last rows of each metric, each given all other rows, ``(metrics,)``."""
    fields = posterior.cholesky, posterior.weights, posterior.observed
    return leave_one_out_log_density(*fields)[:, -last:].sum(-1)
