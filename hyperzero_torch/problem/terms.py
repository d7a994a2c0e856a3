"""Objectives and constraints, as strings or callables, in one form: functions of (delta, level)."""

from __future__ import annotations

import copy
import itertools
import math
import numbers
import re
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import ProblemError
from .expressions import Expression

Sees: TypeAlias = Literal["delta", "level", "both"]
Source: TypeAlias = str | Callable[..., Tensor]


class Objective:
    """An objective with options: what a callable is given, and a name.

    Args:
        function: a string, or a callable / ``nn.Module`` from ``(..., metrics)`` to ``(...)``.
        on: what a callable is given: ``"delta"``, ``"level"``, or ``"both"`` (two arguments,
            deltas then levels). Strings write ``level(metric)`` instead.
        name: for reports; by default the string, or the callable's own name.
    """

    def __init__(self, function: Source, *, on: Sees = "delta", name: str | None = None) -> None:
        self.function = _check_source(function, "objective")
        self.on = _check_on(on, function)
        self.name = name or _name_of(function)


class Constraint:
    """A guardrail: a value with one bound.

    Args:
        function: a comparison such as ``"watch_time >= -0.1%"``; or an expression string or a
            callable / ``nn.Module`` from ``(..., metrics)`` to ``(...)`` together with a bound.
        at_least: lower bound of the value, a fraction.
        at_most: upper bound of the value, a fraction.
        on: what a callable is given, see ``Objective``.
        name: for reports.
        may_exclude_base: allow a constraint on deltas that a delta of 0 violates, i.e. one that the
            base can never satisfy (a required improvement).
    Raises:
        ProblemError: a callable without exactly one bound, or a comparison with one.
    """

    def __init__(
        self,
        function: Source,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        on: Sees = "delta",
        name: str | None = None,
        may_exclude_base: bool = False,
    ) -> None:
        self.function = _check_source(function, "constraint")
        self.on = _check_on(on, function)
        self.at_least = _check_bound(at_least, "at_least")
        self.at_most = _check_bound(at_most, "at_most")
        self.may_exclude_base = may_exclude_base
        bounds = [b for b in (at_least, at_most) if b is not None]
        text = re.sub(r"`[^`]*`", "", function) if isinstance(function, str) else ""
        compares = any(s in text for s in (">=", "<="))
        if compares and bounds:
            raise ProblemError(f"constraint {function!r} contains a bound already; drop the other")
        if not compares and len(bounds) != 1:
            raise ProblemError(
                f"constraint {_name_of(function)!r} needs exactly one of at_least and at_most, "
                f"got {len(bounds)}; write a range as two constraints"
            )
        lower = self.at_least is not None
        sign, bound = (">=", self.at_least) if lower else ("<=", self.at_most)
        self.name = name or (
            str(function) if compares else f"{_name_of(function)} {sign} {bound:g}"
        )


class Term:
    """An objective or constraint as a function of (delta, level)."""

    def __init__(self, term: Objective | Constraint, expression: Expression | None) -> None:
        self.name = term.name
        self.expression = expression
        self.function = term.function
        self.on: Sees = term.on
        self.sign, self.bound = 1.0, 0.0
        #: Where a plain callable has to be called; None: where its arguments are.
        self.home: torch.device | None = None
        if isinstance(term, Constraint):
            if term.at_least is not None:
                self.bound = term.at_least
            elif term.at_most is not None:
                self.sign, self.bound = -1.0, term.at_most

    @property
    def sees_levels(self) -> bool:
        """Whether its value depends on base levels."""
        if self.expression is not None:
            return bool(self.expression.levels)
        return self.on != "delta"

    def identity(self) -> list[str | float]:
        """What identifies the term in a journal: its text and its bound."""
        return [self.name, self.on, self.sign, self.bound]

    def to(self, device: torch.device) -> Term:
        """The same term on a device; a module that has to move is copied, not moved."""
        if not isinstance(self.function, nn.Module):
            return self
        tensors = [*self.function.parameters(), *self.function.buffers()]
        if all(t.device == device for t in tensors):
            return self
        moved = copy.copy(self)
        moved.function = copy.deepcopy(self.function).to(device)
        return moved

    def measured(self, delta: Tensor, level: Tensor) -> Tensor:
        """The quantity that a constraint bounds; an objective's own value."""
        if self.expression is not None and self.expression.measured is not None:
            return self.expression.measured(delta, level)
        return self.sign * self(delta, level) + self.bound

    def __call__(self, delta: Tensor, level: Tensor) -> Tensor:
        """The utility or the slack: two tensors ``(..., metrics)`` to ``(...)``.

        A module is called in its own dtype and on its own device; the result comes back.
        """
        if self.expression is not None:
            value = self.expression.compiled(delta, level)
        else:
            arguments = {"delta": (delta,), "level": (level,), "both": (delta, level)}[self.on]
            dtype, device = _dtype_and_device(self.function)
            if dtype is not None and dtype != delta.dtype:
                arguments = tuple(a.to(dtype) for a in arguments)
            device = self.home if device is None else device
            if device is not None and device != delta.device:
                arguments = tuple(a.to(device) for a in arguments)
            value = self.function(*arguments)  # type: ignore[operator]
            if not isinstance(value, Tensor):
                raise ProblemError(f"it returned a {type(value).__name__}, expected a torch tensor")
            if device is not None and value.device != delta.device:
                value = value.to(delta.device)
        if self.sign == 1.0 and self.bound == 0.0:
            return value.to(delta.dtype)
        return self.sign * (value.to(delta.dtype) - self.bound)


def _check_source(function: Source, what: str) -> Source:
    if not isinstance(function, str) and not callable(function):
        raise ProblemError(
            f"the {what} must be a string, a torch callable or an nn.Module, "
            f"got {type(function).__name__}"
        )
    return function


def _check_on(on: Sees, function: Source) -> Sees:
    if on not in ("delta", "level", "both"):
        raise ProblemError(f"on must be 'delta', 'level' or 'both', got {on!r}")
    if isinstance(function, str) and on != "delta":
        raise ProblemError(
            f"on={on!r} is for callables; in the string {function!r} write level(metric) for "
            "a level"
        )
    return on


def _check_bound(bound: float | None, name: str) -> float | None:
    if bound is None:
        return None
    real = isinstance(bound, numbers.Real) and not isinstance(bound, bool)
    if not real or not math.isfinite(bound):
        raise ProblemError(f"{name} must be a finite number, a fraction, got {bound!r}")
    return float(bound)


def _name_of(function: Source) -> str:
    if isinstance(function, str):
        return function
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _dtype_and_device(function: Source) -> tuple[torch.dtype | None, torch.device | None]:
    """The floating dtype that a module computes in, and the device of its first such tensor.

    None for other callables, and for a module without tensors.
    """
    if not isinstance(function, nn.Module):
        return None, None
    tensors = itertools.chain(function.parameters(), function.buffers())
    first = next((t for t in tensors if t.is_floating_point()), None)
    return (None, None) if first is None else (first.dtype, first.device)
