"""From what a user hands over as ``surrogate`` to a model that the tuner fits; None is the default.

    a name              "matern", "rbf", "additive", "linear+matern", "quadratic+matern",
                        "multitask", "ensemble", "saas"
    "module:function"   a factory in an importable module
    a GPyTorch kernel   fitted with a constant mean
    (mean, kernel)      both GPyTorch modules, over standardised outputs
    a factory           of (dims), which returns any of these; or of (x, y, yvar), which returns an
                        ExactGP or a BoTorch SingleTaskGP for one metric
    BoTorch classes     SingleTaskGP, MultiTaskGP, SaasFullyBayesianSingleTaskGP
    an object           with ``fit``; see ``surrogate/protocol.py``

GPyTorch is imported only where one of its models is asked for.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError, FitError
from ...problem.problem import Problem
from ..ensemble import Ensemble
from ..fit import Surrogate
from ..multitask import MultiTask
from ..posterior import Posterior
from ..protocol import MyPosterior
from ..saas import Saas
from .checked import CheckedPosterior, guarded
from .descriptor import (
    Descriptor,
    digest,
    is_same_model,
    name_of,
    nested,
    of_text,
    probe_points,
)
from .names import DEFAULT, ENSEMBLE, MULTITASK, SAAS, is_reference, names_in_words
from .prior_mean import PriorMean, ShiftedPosterior, UnitMean

#: ``fit(x, mean, var, shared, prior_std)``.
_Fit = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], MyPosterior]


@dataclass(frozen=True, eq=False)
class ForeignSurrogate:
    """A model that is not the package's own, as the tuner fits it.

    ``dims`` is that of the unit cube it is made for; None where it takes any. ``scaled`` is False
    where it takes no prior scale; ``caveat`` is what its users must know. With a ``prior_mean`` it
    needs to be ``bound`` to a problem.
    """

    descriptor: Descriptor
    _fit: _Fit
    dims: int | None = None
    scaled: bool = True
    caveat: str | None = None
    prior_mean: PriorMean | None = None

    def bound(self, problem: Problem) -> ForeignSurrogate:
        """The same over the space and the base of a problem."""
        mean = self.prior_mean
        if mean is None:
            return self

        def fit(
            x: Tensor, y: Tensor, var: Tensor, shared: Tensor | None, std: Tensor | None
        ) -> MyPosterior:
            at_unit = UnitMean(mean, problem)
            inner = self._fit(x, y - at_unit(x), var, shared, std)
            if not isinstance(inner, Posterior):
                inner = CheckedPosterior(inner, x, y.shape[1], self.descriptor.text)
            return ShiftedPosterior(at_unit, inner)

        return replace(self, _fit=fit, prior_mean=None)

    def fit(
        self,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        shared: Tensor | None = None,
        prior_std: Tensor | None = None,
    ) -> CheckedPosterior:
        """The posterior given evidence; arguments as in ``Surrogate.fit``. It is examined first.

        Raises:
            FitError: the model cannot be fitted, or its posterior cannot be used.
        """
        text = self.descriptor.text
        x, mean, var = x.double(), mean.double(), var.double()
        shared = None if shared is None else shared.double()
        inner = guarded(text, "fit", lambda: self._fit(x, mean, var, shared, prior_std))
        return CheckedPosterior(inner, x, mean.shape[1], text).examine()


def choose(value: Any, dims: int, folder: Path | None = None) -> ForeignSurrogate | None:
    """The surrogate that a user means; None for the package's own.

    Args:
        value: see above.
        dims: of the problem's unit cube.
        folder: where a module of ``"module:function"`` is looked for first.
    Raises:
        ConfigError: it is nothing of these, or cannot be used on this problem.
    """
    if value is None or isinstance(value, ForeignSurrogate):
        return value
    if isinstance(value, str):
        return _by_name(value, dims, folder)
    if isinstance(value, type) and value.__module__.startswith("botorch."):
        if value.__name__ == "SaasFullyBayesianSingleTaskGP":
            return _of_object(Saas(), None, dims)
        if value.__name__ == "MultiTaskGP":
            return _of_object(MultiTask(value), None, dims)
    if not isinstance(value, type) and callable(getattr(value, "fit", None)):
        return _of_object(value, None, dims)
    # Only now, since it is slow to import.
    from gpytorch.kernels import Kernel

    if isinstance(value, Kernel):
        return _of_kernel(None, value, dims, None)
    if isinstance(value, tuple) and len(value) == 2:
        return _of_kernel(value[0], value[1], dims, None)
    if callable(value) and not isinstance(value, torch.nn.Module):
        return _of_factory(value, dims, None)
    came = " ".join(f"{type(value).__name__}: {value!r}".split())
    is_made = isinstance(value, torch.nn.Module) and hasattr(value, "likelihood")
    hint = "; hand over what makes the model, not a model of given data" if is_made else ""
    raise ConfigError(
        f"surrogate must be {names_in_words()}, a GPyTorch kernel, a (mean, kernel) pair, a "
        f"factory, or an object with fit(x, mean, var, shared); got {came:.80}{hint}"
    )


def with_prior_mean(surrogate: ForeignSurrogate | None, mean: PriorMean) -> ForeignSurrogate:
    """A surrogate, or the package's own where it is None, of what a prior mean leaves."""
    inner = surrogate or ForeignSurrogate(Descriptor(DEFAULT, of_text(DEFAULT)), _fit_default)
    text, own, _ = inner.descriptor
    descriptor = Descriptor(f"{text} about {mean.text}", of_text(f"{own}|{mean.digest}"))
    return replace(inner, descriptor=descriptor, prior_mean=mean)


def _fit_default(
    x: Tensor, mean: Tensor, var: Tensor, shared: Tensor | None, std: Tensor | None
) -> Posterior:
    return Surrogate(None, std).fit(x, mean, var, shared)


def _by_name(name: str, dims: int, folder: Path | None) -> ForeignSurrogate | None:
    if name == DEFAULT:
        return None
    if is_reference(name):
        return _of_factory(imported(name, folder), dims, name)
    if name in _OBJECTS:
        return _of_object(_OBJECTS[name](), name, dims)
    from .builtin import KERNELS

    if name not in KERNELS:
        raise ConfigError(f"surrogate {name!r} is not known; use {names_in_words()}")
    return _of_kernel(None, KERNELS[name](dims), dims, name)


_OBJECTS: Mapping[str, Callable[[], Any]] = {
    ENSEMBLE: Ensemble,
    MULTITASK: MultiTask,
    SAAS: Saas,
}


def _of_object(value: Any, name: str | None, dims: int) -> ForeignSurrogate:
    if isinstance(value, Saas):
        value.check_installed()
    if isinstance(value, MultiTask):
        value.check(dims)
    try:
        inspect.signature(value.fit).bind(None, None, None, None)
    except TypeError as error:
        raise ConfigError(
            f"{name_of(value)}.fit must take (x, mean, var, shared): {error}"
        ) from None
    given = getattr(value, "descriptor", None)
    text = given if isinstance(given, str) and given else name_of(value)
    descriptor = Descriptor(name or text, of_text(text), name)
    caveat = getattr(value, "caveat", None)
    caveat = caveat if isinstance(caveat, str) and caveat else None
    if "prior_std" not in inspect.signature(value.fit).parameters:
        fit = lambda x, m, v, shared, _: value.fit(x, m, v, shared)  # noqa: E731
        return ForeignSurrogate(descriptor, fit, scaled=False, caveat=caveat)
    scaled = lambda x, m, v, shared, std: value.fit(x, m, v, shared, prior_std=std)  # noqa: E731
    return ForeignSurrogate(descriptor, scaled, caveat=caveat)


def _of_kernel(mean: Any, kernel: Any, dims: int, name: str | None) -> ForeignSurrogate | None:
    from gpytorch.kernels import Kernel
    from gpytorch.means import Mean

    from .builtin import KERNELS, default_kernel, default_mean
    from .model import KernelSurrogate, caveat_of, check_prior
    from .prior import MetricPrior

    if not isinstance(kernel, Kernel) or not (mean is None or isinstance(mean, Mean)):
        raise ConfigError(
            "a pair as surrogate is (mean, kernel), a gpytorch.means.Mean and a "
            f"gpytorch.kernels.Kernel; got ({type(mean).__name__}, {type(kernel).__name__})"
        )
    text = name or nested(kernel)
    if name is None and mean is not None:
        text = f"{type(mean).__name__} and {text}"
    mean = default_mean() if mean is None else mean
    prior = MetricPrior(mean, kernel)
    check_prior(prior, probe_points(dims), text)
    usual = MetricPrior(default_mean(), default_kernel(dims))
    if is_same_model(prior, usual):
        return None
    if name is not None:  # made anew for the dims of each fit
        by_name = KERNELS[name]
        fit = KernelSurrogate(lambda data: MetricPrior(mean, by_name(data.x.shape[1]))).fit
        return ForeignSurrogate(Descriptor(text, of_text(name), name), fit)
    fit = KernelSurrogate(lambda _: prior.copied()).fit
    descriptor = Descriptor(text, digest(prior))
    return ForeignSurrogate(descriptor, fit, dims, caveat=caveat_of(prior, dims))


def _of_factory(
    factory: Callable[..., Any], dims: int, name: str | None
) -> ForeignSurrogate | None:
    text = name or name_of(factory)
    num = _num_required(factory, text)
    if num < 2:
        try:
            made = guarded(text, "the factory", lambda: factory(*[dims][:num]))
        except FitError as error:
            raise ConfigError(f"{error}; it is called with {('nothing', 'dims')[num]}") from error
        if made is None or isinstance(made, str):
            raise ConfigError(
                f"{text} must return a GPyTorch kernel, a (mean, kernel) pair or an object with "
                f"fit, got {made!r:.60}"
            )
        chosen = choose(made, dims)
        if chosen is None:
            return None
        descriptor = Descriptor(text, chosen.descriptor.digest, name)
        return replace(chosen, descriptor=descriptor)
    return _of_model(factory, dims, text, name)


def _of_model(
    factory: Callable[..., Any], dims: int, text: str, name: str | None
) -> ForeignSurrogate:
    from .model import KernelSurrogate, ModelPrior, caveat_of, check_model, check_prior
    from .posterior import MetricData

    def start(data: MetricData) -> ModelPrior:
        arguments = (data.x, data.y.unsqueeze(-1), data.noise.diagonal().unsqueeze(-1))
        model = guarded(text, "the factory", lambda: factory(*arguments))
        return ModelPrior(check_model(model, text))

    x = probe_points(dims)
    y = torch.linspace(-1.5, 1.5, len(x), dtype=torch.float64)
    try:
        prior = start(MetricData(x, y, 0.1 * torch.eye(len(x), dtype=torch.float64)))
    except FitError as error:
        raise ConfigError(
            f"{error}; it is called with x (n, {dims}), y (n, 1) and yvar (n, 1) of one metric"
        ) from error
    check_prior(prior, x, text)
    prior.model.likelihood = torch.nn.Identity()  # holds the data, which are no part of the prior
    descriptor = Descriptor(text, digest(prior), name)
    fit = KernelSurrogate(start).fit
    return ForeignSurrogate(descriptor, fit, dims, caveat=caveat_of(prior, dims))


def _num_required(factory: Callable[..., Any], text: str) -> int:
    """Positional arguments without a default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        raise ConfigError(
            f"the arguments of {text} cannot be read; wrap it in a function"
        ) from None
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )


def imported(reference: str, folder: Path | None, what: str = "surrogate") -> Callable[..., Any]:
    """The function that ``"module:function"`` names."""
    module, _, function = reference.partition(":")
    before = list(sys.path)
    sys.path[:0] = [] if folder is None else [str(folder)]
    try:
        loaded = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(
            f"{what} {reference!r} cannot be imported: {error}; write 'module:function' with a "
            "module that Python finds, or one that lies beside the study file"
        ) from None
    finally:
        sys.path[:] = before
    if not callable(loaded):
        raise ConfigError(f"{what} {reference!r} is {type(loaded).__name__}, not a function")
    return loaded  # type: ignore[no-any-return]
