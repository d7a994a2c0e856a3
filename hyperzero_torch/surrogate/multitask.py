"""Metrics that inform each other: one Gaussian process over points and metrics.

    cov(f_i(x), f_j(x')) = B_ij k(x, x')        (the intrinsic coregionalisation model)

Metrics share the kernel k, so all change over the same distances; B holds their variances and
correlations, of either sign. Noise is known, and so are the errors that arms share through their
control, metric by metric.

What is approximated: the errors of *different* metrics of an arm count as independent, because the
readings do not say how they are correlated. Where two metrics of the same users have correlated
noise, the model is somewhat too sure of their correlation.

Source: Bonilla, Chai and Williams (2008), Multi-task Gaussian process prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import ConfigError

if TYPE_CHECKING:
    from .foreign.tasks import TasksPosterior


class MultiTask:
    """One exact Gaussian process for all metrics; see the module.

    Args:
        factory: of a BoTorch ``MultiTaskGP``, called with x ``(N, dims + 1)`` whose last column is
            the metric's number, y ``(N, 1)``, yvar ``(N, 1)`` and the task feature's column; the
            class itself is such a function. BoTorch's assumes correlations above 0. By default
            Matern 5/2 with the package's priors, and correlations of either sign.
    Raises:
        ConfigError: it cannot be called.
    """

    def __init__(self, factory: Callable[..., Any] | None = None) -> None:
        if factory is not None and not callable(factory):
            raise ConfigError(
                "factory must be a function of (x, y, yvar, task_feature) that makes a BoTorch "
                f"MultiTaskGP, got {type(factory).__name__}"
            )
        self.factory = factory

    @property
    def descriptor(self) -> str:
        """What its fits depend on, for the journal."""
        if self.factory is None:
            return "MultiTask()"
        return f"MultiTask({self.factory.__module__}.{self.factory.__qualname__})"

    def check(self, dims: int) -> None:
        """Make the model of a few points, and refuse what cannot be used.

        Raises:
            ConfigError: the factory fails, or makes no such model.
            MissingExtraError: BoTorch is missing.
        """
        if self.factory is not None:
            from .foreign.tasks import check_factory

            check_factory(self.factory, dims)

    def fit(
        self,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        shared: Tensor | None = None,
        prior_std: Tensor | None = None,
    ) -> TasksPosterior:
        """The posterior given evidence; arguments and errors as in ``Surrogate``."""
        from .foreign.tasks import fit_tasks  # GPyTorch, which is slow to import

        return fit_tasks(self.factory, x, mean, var, shared, prior_std)
