"""The region of the cube where linear constraints on theta hold.

v   (..., k) one number in [0, 1] for each parameter that a constraint names: equal cells for
    the whole numbers of an Int, the place on the logarithm for a log Float.
z   (..., k) the same points in the unit cube of a box of theta that holds the region, where
    constraints stay linear; a whole number takes all of its cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ...errors import SpaceError
from ..parameters import Choice, Float, Int
from .parse import Linear
from .polytope import Array, Box, Extent, Programme, cube, extent, tighten, whole_point

# Relative to the terms of a constraint: violations that may be rounding.
_TOLERANCE = 1e-10
_ULPS = 50
_LARGEST = 1e250
_PILOT = 2**14
_MOST_NUMBERS = 2**23


class Region:
    """The points where all constraints hold.

    Args:
        parameters: all of the space's.
        constraints: at least one.
    Raises:
        SpaceError: no theta satisfies them all.
    """

    def __init__(
        self, parameters: Sequence[Float | Int | Choice], constraints: Sequence[Linear]
    ) -> None:
        rows = np.array([c.coefficients for c in constraints])
        self.constraints = tuple(constraints)
        self.columns = np.flatnonzero(np.abs(rows).max(0)).tolist()
        named = [parameters[i] for i in self.columns]
        self.parameters = [p for p in named if not isinstance(p, Choice)]  # no constraint names one
        widths = [p.width for p in parameters]
        self.dims = [sum(widths[:i]) for i in self.columns]
        self.matrix, self.bound = rows[:, self.columns], np.array([c.bound for c in constraints])
        whole = np.array([isinstance(p, Int) for p in self.parameters])
        low, high = (
            np.array([float(getattr(p, side)) for p in self.parameters]) for side in ("low", "high")
        )
        with np.errstate(over="ignore"):
            terms = np.abs(self.matrix) * np.maximum(np.abs(low), np.abs(high))
        if max(terms.max(), np.abs(self.bound).max()) > _LARGEST:
            raise SpaceError("a constraint's numbers are too large for a float; rescale it")
        self.low, self.high, self.whole = low, high, whole
        self._tensors: dict[tuple[str, torch.device], Tensor] = {}
        self.log = [i for i, p in enumerate(self.parameters) if isinstance(p, Float) and p.log]
        tight, self._pinned = self._find(Box(low, high, whole))
        half = 0.5 * whole
        #: The box around the region, extended by half a cell around whole numbers.
        self.cells = Box(tight.low - half, tight.high + half, whole)
        self.start, self.span = self.cells.low, self.cells.span

    def _find(self, box: Box) -> tuple[Box, Box | None]:
        """A box around the region; and one with feasible whole numbers pinned, or None."""
        programme = Programme(*cube(self.matrix, self.bound, box))
        tight = tighten(self.matrix, self.bound, box)
        if tight is None or (Programme(*cube(self.matrix, self.bound, tight)).violation > 1e-11):
            if programme.violation <= 1e-11 and self.whole.any():
                raise self._empty([], " with whole numbers")
            rows = programme.conflict if programme.violation > 1e-11 else []
            raise self._empty([self.constraints[r].source for r in rows])
        if not self.whole.any():
            return tight, tight
        pinned, proved = whole_point(self.matrix, self.bound, tight)
        if pinned is None and proved:
            raise self._empty([], " with whole numbers")
        return tight, pinned

    def _empty(self, sources: Sequence[str], how: str = "") -> SpaceError:
        sources = sources or [c.source for c in self.constraints]
        verb = "cannot hold" if len(sources) == 1 else "cannot hold together"
        return SpaceError(
            f"no theta is left: the constraint{'s' * (len(sources) > 1)} {list(sources)} "
            f"{verb} within the parameters' bounds{how}; loosen one of them or widen the bounds"
        )

    def violations(self, theta: Tensor) -> Tensor:
        """The violation of each constraint, ``(..., params)`` to ``(..., constraints)``.

        Zero or less is satisfied; rounding is tolerated.
        """
        value, slop = self._measure(theta[..., self.columns].double(), theta.dtype)
        return torch.where(value <= slop, value.clamp_max(0.0), value)

    def holds(self, v: Tensor) -> Tensor:
        """Whether a servable point satisfies every constraint, ``(..., k)`` to ``(...)``."""
        with torch.no_grad():
            value, slop = self._measure(self._from_unit(v.double()), v.dtype)
            return (value <= slop).all(-1)

    def _from_unit(self, v: Tensor) -> Tensor:
        """What the parameters' own ``from_unit`` gives, all columns at once."""
        low, high = self.tensor("low", v), self.tensor("high", v)
        theta = low + v * (high - low)
        if self.whole.any():
            cells = low + (v * (high - low + 1)).floor()
            theta = torch.where(self.tensor("whole", v), cells, theta)
        for i in self.log:
            theta[..., i] = self.parameters[i].from_unit(v[..., i : i + 1])
        return theta.clamp(low, high)

    def _measure(self, theta: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Value minus bound, and how much of it may be the rounding of a ``dtype``."""
        matrix, bound = self.tensor("matrix", theta), self.tensor("bound", theta)
        size = theta.abs() @ matrix.abs().T + bound.abs()
        ulp = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
        return theta @ matrix.T - bound, max(_TOLERANCE, _ULPS * ulp) * size

    @cached_property
    def _pilot(self) -> Tensor:
        """The feasible points of a fixed sample of the cube."""
        generator = torch.Generator().manual_seed(0)
        v = torch.rand(self._num_pilot, len(self.columns), dtype=torch.float64, generator=generator)
        return v[self.holds(v)]

    @property
    def _num_pilot(self) -> int:
        return min(_PILOT, _MOST_NUMBERS // len(self.columns) + 1)

    @property
    def share(self) -> float:
        """About the fraction of the cube that is feasible."""
        return len(self._pilot) / self._num_pilot

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """An array of the region as a tensor on the device of another; copied once."""
        key = name, like.device
        if key not in self._tensors:
            self._tensors[key] = torch.tensor(getattr(self, name), device=like.device)
        return self._tensors[key]

    @cached_property
    def faces(self) -> tuple[Array, Array]:
        """Rows over z that hold for every point of the region, anywhere in its cells."""
        matrix, bound = cube(self.matrix, self.bound, self.cells)
        return matrix, bound + 0.5 * np.abs(self.matrix) @ self.whole

    @cached_property
    def extent(self) -> Extent:
        """Extent of the polytope of the faces."""
        return extent(Programme(*self.faces))

    @cached_property
    def halfspaces(self) -> tuple[Tensor, Tensor, Tensor]:
        """The constraints over z: ``matrix (rows, k)``, ``bound`` and ``room``, each ``(rows,)``.

        Rows are scaled to a largest coefficient of 1; ``room`` is the largest slack of a point.
        """
        matrix, bound = cube(self.matrix, self.bound, self.cells)
        unit = np.abs(matrix).max(1)
        unit[unit == 0] = 1.0
        room = (bound - self.extent.points @ matrix.T).max(0) / unit
        return torch.tensor(matrix / unit[:, None]), torch.tensor(bound / unit), torch.tensor(room)

    @cached_property
    def starts(self) -> Tensor:
        """Feasible ``z (m, k)`` where chains and projections start; ``SpaceError`` if none."""
        if len(self._pilot):
            return self.to_z(self._pilot)
        if self._pinned is not None:
            programme = Programme(*cube(self.matrix, self.bound, self._pinned))
            middle = extent(programme).points.mean(0)
            theta = self._pinned.low + middle * self._pinned.span
            z = (theta - self.start) / np.where(self.span > 0, self.span, 1.0)
            start = torch.tensor(z).unsqueeze(0)
            if bool(self.holds(self.to_v(start)).all()):
                return start
        raise SpaceError(
            f"hardly any theta is left: none that satisfies {[c.source for c in self.constraints]} "
            "was found; loosen one of the constraints"
        )

    def theta(self, z: Tensor) -> Tensor:
        """``z (..., k)`` in the user's units, whole numbers anywhere in their cells."""
        return self.tensor("start", z) + z * self.tensor("span", z)

    def to_v(self, z: Tensor) -> Tensor:
        """``z (..., k)`` to ``v``."""
        theta = self.theta(z)
        low, high = self.tensor("low", theta), self.tensor("high", theta)
        half = 0.5 * self.tensor("whole", theta)
        v = (theta - low + half) / (high - low + 2 * half)
        for i in self.log:
            p = self.parameters[i]
            v[..., i] = p.to_unit(theta[..., i].clamp(p.low, p.high))[..., 0]
        return v.clamp(0.0, 1.0)

    def snap(self, v: Tensor) -> Tensor:
        """``v (..., k)`` with whole numbers at the centres of their cells."""
        v = v.clone()
        for i in np.flatnonzero(self.whole).tolist():
            p = self.parameters[i]
            v[..., i] = p.to_unit(p.from_unit(v[..., i : i + 1]))[..., 0]
        return v

    def to_z(self, v: Tensor, *, snap: bool = False) -> Tensor:
        """``v (..., k)`` to ``z``, never outside the box; ``snap`` moves Ints to cell centres."""
        theta = self._from_unit(v)
        if not snap:
            low, high = self.tensor("low", v), self.tensor("high", v)
            theta = torch.where(self.tensor("whole", v), low - 0.5 + v * (high - low + 1), theta)
        span = self.tensor("span", theta)
        z = (theta - self.tensor("start", theta)) / torch.where(span > 0, span, 1.0)
        return z.clamp(0.0, 1.0)
