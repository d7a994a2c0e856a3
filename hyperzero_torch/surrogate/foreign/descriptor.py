"""What identifies a surrogate: a text that people read, and a digest of all that a fit depends on.

The journal holds both, so that a study goes on with the same surrogate or not at all.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

_PLAIN = (bool, int, float, str, type(None))
# What evaluating a module changes.
_NO_SETTINGS = ("training", "distance_module")


class Descriptor(NamedTuple):
    """``text`` names the surrogate; ``digest`` differs where its fits can differ.

    ``name`` is set where the package, or the study file, can make it again.
    """

    text: str
    digest: str
    name: str | None = None


def nested(module: nn.Module) -> str:
    """A module's type, with the types of its parts of the same kind: ``ScaleKernel(RBFKernel)``."""
    parts: list[nn.Module] = []
    for child in module.children():
        listed = list(child) if isinstance(child, nn.ModuleList) else [child]
        parts += [part for part in listed if hasattr(part, "is_stationary")]  # kernels
    inner = ", ".join(map(nested, parts))
    return type(module).__name__ + (f"({inner})" if inner else "")


def digest(*modules: nn.Module) -> str:
    """Of modules: their types, plain settings, buffers and parameters."""
    summary = hashlib.sha256(_settings(*modules).encode())
    for module in modules:
        tensors = [*module.named_buffers(), *module.named_parameters()]
        for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
            values = tensor.detach().cpu()
            values = values.double() if values.is_floating_point() else values
            summary.update(f"{name}|{tuple(values.shape)}".encode())
            summary.update(values.contiguous().numpy().tobytes())
    return summary.hexdigest()[:16]


def is_same_model(a: nn.Module, b: nn.Module) -> bool:
    """Whether modules differ at most in the values of their parameters: a fit replaces these."""
    buffers = [dict(module.named_buffers()) for module in (a, b)]
    shapes = [{n: p.shape for n, p in module.named_parameters()} for module in (a, b)]
    return (
        _settings(a) == _settings(b)
        and shapes[0] == shapes[1]
        and buffers[0].keys() == buffers[1].keys()
        and all(
            torch.allclose(value.double(), buffers[1][name].double(), rtol=1e-6)
            for name, value in buffers[0].items()
        )
    )


def _settings(*modules: nn.Module) -> str:
    lines = []
    for name, part in (pair for module in modules for pair in module.named_modules()):
        settings = sorted(
            (key, value)
            for key, value in vars(part).items()
            if isinstance(value, _PLAIN) and not key.startswith("_") and key not in _NO_SETTINGS
        )
        lines.append(f"{name}|{type(part).__module__}.{type(part).__qualname__}|{settings}")
    return "\n".join(lines)


def of_text(text: str) -> str:
    """Digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def name_of(value: Any) -> str:
    """Module and name of a function, a class, or an object's class."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def probe_points(dims: int) -> Tensor:
    """Points of the cube at which a model is tried before it is used, ``(n, dims)``."""
    return sobol_points(2 * dims + 6, torch.empty(0, dims, dtype=torch.float64))


def sobol_points(num: int, like: Tensor) -> Tensor:
    """The first points of a scrambled Sobol sequence of the cube that ``like (n, dims)`` is in."""
    engine = SobolEngine(like.shape[1], scramble=True, seed=0)  # type: ignore[no-untyped-call]
    points: Tensor = engine.draw(num, dtype=torch.float64)
    return points.to(like)
