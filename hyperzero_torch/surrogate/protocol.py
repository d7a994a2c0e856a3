"""What a surrogate is: the two or three methods that a model of your own needs.

    class Mine:
        def fit(self, x, mean, var, shared): ...       # -> a posterior, as below

A posterior of your own has ``marginal``, ``covariance``, ``paths`` and ``condition``, as
``MyPosterior`` lists them. The tuner checks what they return, and reads the rest
(``FittedPosterior``) from an adapter of its own, so nothing else has to be written. Prove yours
with ``hyperzero_torch.testing.SurrogateContract``.

Everywhere ``x`` lies in the unit cube, deltas are in raw units, float64, NaN where a metric was not
observed, and ``shared`` is the covariance of the errors that rows have in common.

A ``fit`` that takes a further ``prior_std`` gets it: ``(metrics,)``, half of ``plausible_lift``,
NaN where a metric has none, or None. It is the prior's standard deviation in the deltas' unit.

An attribute ``caveat``, a text, is what users of the model must know. The journal of a study has
it, and its card of health *Surrogate* is on WATCH.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class MySurrogate(Protocol):
    """A model of your own. Fitting it must depend on its arguments and on its settings alone."""

    def fit(self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None) -> MyPosterior:
        """The posterior given noisy observations with known variances.

        Args:
            x: ``(n, dims)``.
            mean: ``(n, metrics)`` observed deltas; NaN where a metric was not observed.
            var: ``(n, metrics)`` variances of their errors, 0 for the base, whose delta is known.
            shared: ``(metrics, n, n)`` covariance between the errors of different rows, from the
                control that they have in common; its diagonal is ignored. None where there is none.
        """
        ...


@runtime_checkable
class MyPosterior(Protocol):
    """A fitted model of your own: a Gaussian at each point, and joint draws."""

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance at points: ``(N, dims)`` to ``(N, metrics)`` twice."""
        ...

    def covariance(self, x: Tensor) -> Tensor:
        """Joint covariance of few points: ``(N, dims)`` to ``(metrics, N, N)``."""
        ...

    def paths(self, num_paths: int, generator: torch.Generator) -> MyPaths:
        """Joint draws as functions of x; all their randomness comes from the generator."""
        ...

    def condition(self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None) -> MyPosterior:
        """The same prior given other evidence, without fitting anything anew."""
        ...


class MyPaths(Protocol):
    """Functions drawn together; the same point always has the same value."""

    def __call__(self, x: Tensor) -> Tensor:
        """``(N, dims)`` to ``(paths, N, metrics)``, differentiable in ``x``."""
        ...


class Drawn(Protocol):
    """What drawn functions say of the posterior that they were drawn from."""

    @property
    def num_metrics(self) -> int:
        """How many metrics."""
        ...


class DrawnPaths(Protocol):
    """What the package uses of drawn functions."""

    @property
    def posterior(self) -> Drawn:
        """What they were drawn from."""
        ...

    @property
    def num_paths(self) -> int:
        """How many functions."""
        ...

    @property
    def tile(self) -> int:
        """Points to evaluate at once, so that temporaries stay small."""
        ...

    def __getitem__(self, paths: slice) -> DrawnPaths:
        """A few of the functions."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Every function at every point: ``(N, dims)`` to ``(paths, N, metrics)``."""
        ...

    def each(self, x: Tensor) -> Tensor:
        """Each function at its own points: ``(paths, S, dims)`` to ``(paths, S, metrics)``."""
        ...


class FittedPosterior(Protocol):
    """What the package uses of a posterior; ``Posterior`` is the default.

    ``x (n, dims)`` are the points that it was fitted to. ``lengthscale (metrics, dims)`` is the
    distance over which a metric changes: two candidates within a small part of it are the same.
    ``fit_succeeded`` is False where hyperparameters are not the data's.
    """

    @property
    def x(self) -> Tensor:
        """Points that it was fitted to."""
        ...

    @property
    def lengthscale(self) -> Tensor:
        """Distance over which each metric changes in each dimension."""
        ...

    @property
    def num_metrics(self) -> int:
        """How many metrics."""
        ...

    @property
    def device(self) -> torch.device:
        """Where points must be."""
        ...

    @property
    def fit_succeeded(self) -> bool:
        """Whether its hyperparameters are the data's."""
        ...

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance: ``(..., dims)`` to ``(..., metrics)``."""
        ...

    def covariance(self, x: Tensor) -> Tensor:
        """Joint covariance of few points: ``(N, dims)`` to ``(metrics, N, N)``."""
        ...

    def paths(self, num_paths: int, generator: torch.Generator | None = None) -> DrawnPaths:
        """Joint draws as functions of x."""
        ...

    def condition(
        self, x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None = None
    ) -> FittedPosterior:
        """The same prior given other evidence."""
        ...
