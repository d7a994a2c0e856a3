"""The kernel's hyperparameters, and what is believed of them before any evidence."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

# Standard deviations of the priors: of two logarithms, and of the constant.
LENGTHSCALE_SPREAD = 0.6
OUTPUTSCALE_SPREAD = 0.7
CONSTANT_SPREAD = 1.0


class Hyperparameters(NamedTuple):
    """Of each metric's kernel, on outputs standardised by the surrogate.

    ``lengthscale (metrics, dims)``, ``outputscale (metrics,)`` (variance), ``constant (metrics,)``.
    """

    lengthscale: Tensor
    outputscale: Tensor
    constant: Tensor


def default_hyperparameters(num_metrics: int, dims: int, like: Tensor) -> Hyperparameters:
    """The medians of the priors: where a cold fit starts, and what a hopeless fit falls back to."""
    # Distances in the unit cube grow with sqrt(dims), and so must the lengthscale (Hvarfner,
    # Hellsten and Nardi, 2024). Short, and above 1, the variance that standardisation finds: where
    # the data do not tell, a long lengthscale and little signal would promise to know what nobody
    # has tried.
    lengthscale = like.new_full((num_metrics, dims), 0.35 * math.sqrt(dims))
    outputscale = like.new_full((num_metrics,), 1.4)
    return Hyperparameters(lengthscale, outputscale, like.new_zeros(num_metrics))
