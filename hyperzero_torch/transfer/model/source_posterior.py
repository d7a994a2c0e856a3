"""What a source knows by itself: an exact Gaussian process of its own evidence alone."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ...problem.problem import Problem
from ...surrogate import Posterior, Surrogate
from ..alignment import Aligned


class Alone(NamedTuple):
    """A posterior over the target's unit cube, of those metrics that the source knows."""

    posterior: Posterior
    metrics: tuple[str, ...]


def learn_alone(aligned: Aligned, problem: Problem) -> Alone:
    """The source's own posterior, from its evidence and the error that all its settings share.

    One setting is enough: then the posterior is all but the prior's medians, and says so by its
    variance.

    Args:
        aligned: with evidence on at least one metric.
        problem: the target.
    Raises:
        FitError: no Gaussian process can be fitted.
    """
    known = ~aligned.mean.isnan()
    columns = known.any(0).nonzero().flatten().tolist()
    mean = aligned.mean[:, columns]
    var = torch.where(known, aligned.var, 1.0)[:, columns]
    shared = None if aligned.shared is None else aligned.shared[columns]
    posterior = Surrogate().fit(aligned.x, mean, var, shared)
    return Alone(posterior, tuple(problem.metrics[m] for m in columns))
