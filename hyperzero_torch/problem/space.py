"""The search space: parameters, and the maps between theta and the unit cube.

    theta   the user's units: one column per parameter; an Int is a whole number,
            a Choice is the index of its option.            (..., params)
    x       the unit cube that the Gaussian process sees: a Float or an Int takes one
            coordinate, a Choice takes one coordinate per option (one-hot).  (..., dims)

A Float with ``log=True`` is uniform in its logarithm. ``snap`` moves any x to the nearest point
that a platform can serve (whole numbers, one option).

Linear constraints on theta, in the user's units, exclude a part of the space: a theta that violates
them is refused, and samples, grids and snapped points satisfy them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from ..errors import ShapeError, SpaceError
from . import linear
from .parameters import Choice, Float, Int, Parameter, Value

__all__ = ["Choice", "Float", "Int", "Parameter", "SearchSpace", "Value"]


class SearchSpace:
    """An ordered set of parameters, and the maps between theta and the unit cube.

    Args:
        parameters: ``Float``, ``Int`` and ``Choice``, with different names.
        constraints: strings that are linear in Floats and Ints, such as
            ``"w_click + 2 * w_share <= 1.5"`` or ``"w_a >= w_b"``.
    Raises:
        SpaceError: no parameter, a repeated name, or constraints that no theta satisfies.
        ExpressionError: a constraint that is not understood or not linear.
    """

    def __init__(
        self, parameters: Sequence[Float | Int | Choice], constraints: Sequence[str] = ()
    ) -> None:
        if not isinstance(parameters, Iterable):
            raise SpaceError(
                "a search space takes a list of parameters, got "
                f"{type(parameters).__name__}; write SearchSpace([Float(...), ...])"
            )
        self.parameters = tuple(parameters)
        if not self.parameters:
            raise SpaceError("a search space needs at least one parameter, got none")
        for parameter in self.parameters:
            if not isinstance(parameter, Float | Int | Choice):
                raise SpaceError(
                    f"expected Float, Int or Choice, got {type(parameter).__name__}: {parameter!r}"
                )
        self.names = tuple(p.name for p in self.parameters)
        repeated = sorted(name for name, times in Counter(self.names).items() if times > 1)
        if repeated:
            raise SpaceError(f"parameter names must differ, these come twice: {repeated}")
        self.num_params = len(self.parameters)
        self.widths = tuple(p.width for p in self.parameters)
        self.num_dims = sum(self.widths)
        self.constraints = _check_constraints(constraints)
        rows = [linear.parse_linear(source, self.parameters) for source in self.constraints]
        self._region = linear.Region(self.parameters, rows) if rows else None

    def __repr__(self) -> str:
        constraints = f", constraints={list(self.constraints)}" if self.constraints else ""
        return f"SearchSpace([{', '.join(map(repr, self.parameters))}]{constraints})"

    def __eq__(self, other: object) -> bool:
        """The same parameters in the same order, and the same constraints as they are written."""
        # By their text, since True == 1 in Python but a flag is not a number.
        return isinstance(other, SearchSpace) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def theta(self, parameters: Mapping[str, Any], what: str = "theta") -> Tensor:
        """A mapping from every parameter's name to its value, as a row ``(params,)``, float64.

        Raises:
            SpaceError: a name is missing or unknown, a value lies outside, or a constraint is
                violated; says by how much.
        """
        if not isinstance(parameters, Mapping):
            raise SpaceError(
                f"{what} must map parameter names to values, got {type(parameters).__name__}"
            )
        missing = [name for name in self.names if name not in parameters]
        unknown = [str(name) for name in parameters if name not in self.names]
        if missing or unknown:
            raise SpaceError(
                f"{what} must name exactly the parameters {list(self.names)}: "
                f"missing {missing}, unknown {unknown}"
            )
        try:
            values = [p.check(parameters[p.name]) for p in self.parameters]
        except SpaceError as error:
            raise SpaceError(f"{what}: {error}") from None
        theta = torch.tensor(values, dtype=torch.float64)
        self._check_constraints(theta, what)
        return theta

    def check(self, theta: Tensor) -> Tensor:
        """``theta (..., params)`` unchanged, if every row is valid.

        Raises:
            ShapeError: another width.
            SpaceError: a value outside its parameter, or a violated constraint; names the first.
        """
        self._check_width(theta, self.num_params, "theta", "params")
        for column, parameter in zip(theta.reshape(-1, self.num_params).T, self.parameters):
            for value in column.unique().tolist():
                if isinstance(parameter, Choice):
                    parameter.check_index(value)
                else:
                    parameter.check(value)
        self._check_constraints(theta, "theta")
        return theta

    def satisfied(self, x: Tensor) -> Tensor:
        """Where every constraint holds once x is snapped: ``(..., dims)`` to bool ``(...)``.

        Rounding at a bound is tolerated; a NaN violates every constraint that it enters.
        """
        self._check_width(x, self.num_dims, "x", "dims")
        if self._region is None:
            return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
        return self._region.holds(x[..., self._region.dims])

    def contains(self, theta: Tensor) -> Tensor:
        """Where theta can be served: ``(n, params)`` to bool ``(n,)``.

        Rounding at a bound is tolerated.
        """
        inside = torch.ones(len(theta), dtype=torch.bool)
        for column, parameter in zip(theta.T, self.parameters):
            for value in column.unique().tolist():
                try:
                    check = (
                        parameter.check_index if isinstance(parameter, Choice) else parameter.check
                    )
                    check(value)
                except SpaceError:
                    inside &= column != value
        if self._region is not None:
            inside &= (self._region.violations(theta) <= 0).all(-1)
        return inside

    def to_parameters(self, theta: Tensor) -> list[dict[str, Value]]:
        """``(n, params)`` to ``n`` mappings from name to value, ready to serve."""
        return [
            {p.name: p.value(v) for p, v in zip(self.parameters, row)} for row in theta.tolist()
        ]

    def to_unit(self, theta: Tensor) -> Tensor:
        """``(..., params)`` in the user's units to ``(..., dims)`` in the unit cube."""
        self._check_width(theta, self.num_params, "theta", "params")
        columns = [p.to_unit(theta[..., i]) for i, p in enumerate(self.parameters)]
        return torch.cat(columns, dim=-1)

    def from_unit(self, x: Tensor) -> Tensor:
        """``(..., dims)`` in the unit cube to ``(..., params)`` in the user's units."""
        self._check_width(x, self.num_dims, "x", "dims")
        parts = torch.split(x, list(self.widths), dim=-1)
        return torch.stack([p.from_unit(part) for p, part in zip(self.parameters, parts)], dim=-1)

    def snap(self, x: Tensor) -> Tensor:
        """The nearest servable point: ``(..., dims)`` to the same shape, idempotent.

        Where that violates a constraint, a near point that does not: see ``linear.nearest``.
        """
        self._check_width(x, self.num_dims, "x", "dims")
        parts = [
            # Not through theta: the logarithm and back would change a servable point by an ulp.
            part.clamp(0.0, 1.0) if isinstance(p, Float) else p.to_unit(p.from_unit(part))
            for p, part in zip(self.parameters, torch.split(x, list(self.widths), dim=-1))
        ]
        snapped = torch.cat(parts, dim=-1)
        if self._region is None:
            return snapped
        dims = self._region.tensor("dims", snapped)
        outside = ~self._region.holds(snapped[..., dims])
        if snapped.device.type != "cpu":  # one copy there and back; a mask would wait several times
            v = snapped[..., dims].detach()
            moved = torch.where(outside.unsqueeze(-1), linear.nearest(self._region, v), v)
            return snapped.index_copy(-1, dims, moved)
        if not bool(outside.any()):
            return snapped
        rows = snapped[outside].detach().clone()
        rows[:, self._region.dims] = linear.nearest(self._region, rows[:, self._region.dims])
        snapped = snapped.clone()
        snapped[outside] = rows
        return snapped

    def uniform(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """``num`` independent uniform points, ``(num, dims)``, on the generator's device.

        Where constraints leave less than about a 64th of the space, they are states of Markov
        chains instead: see ``linear.samples``.
        """
        if self._region is not None:
            return self._place(linear.uniform(self._region, num, self.num_params, generator))
        device = generator.device if generator is not None else torch.device("cpu")
        shape = (num, self.num_params)
        u = torch.rand(shape, dtype=torch.float64, generator=generator, device=device)
        return self._place(u)

    def sobol(self, num: int, seed: int) -> Tensor:
        """The first ``num`` points of a scrambled Sobol sequence, ``(num, dims)``, on the CPU.

        With constraints, the first that satisfy them; where less than about a 64th of the space
        does, uniform points drawn from the seed.
        """
        if self.num_params > SobolEngine.MAXDIM:
            raise SpaceError(
                f"Sobol samples go up to {SobolEngine.MAXDIM} parameters, "
                f"the space has {self.num_params}; use uniform samples"
            )
        if self._region is not None:
            return self._place(linear.sobol(self._region, num, self.num_params, seed))
        if num == 0:
            return self._place(torch.empty(0, self.num_params, dtype=torch.float64))
        engine = SobolEngine(self.num_params, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        return self._place(engine.draw(num, dtype=torch.float64))

    def grid(self, num: int) -> Tensor:
        """A full grid of at most ``num`` points, ``(points, dims)``: equal cells, their centres.

        A Choice takes all its options and every other parameter the same number of levels, so the
        grid may have fewer than ``num`` points. With constraints, it is the finest grid of which at
        most ``num`` points satisfy them, without the others.

        Raises:
            SpaceError: not even two levels per parameter fit into ``num``, or no point of a grid
                satisfies the constraints; use Sobol instead.
        """
        if self._region is not None:
            return self._place(linear.grid(self._region, num, self.parameters))
        fixed = math.prod(len(p.served) for p in self.parameters if isinstance(p, Choice))
        others = [p for p in self.parameters if not isinstance(p, Choice)]
        share = max(num, 0) / fixed
        per = math.floor(share if not others else share ** (1 / len(others)) + 1e-9)
        if per < (2 if others else 1):
            raise SpaceError(
                f"a grid over {self.num_params} parameters does not fit into {num} points; "
                "allow more initial candidates or use initial_design='sobol'"
            )
        axes = [p.levels(per) for p in self.parameters]
        return self._place(torch.cartesian_prod(*axes).reshape(-1, self.num_params))

    def _place(self, u: Tensor) -> Tensor:
        """One uniform number per parameter, ``(n, params)``, to servable points ``(n, dims)``."""
        columns = []
        for i, p in enumerate(self.parameters):
            column = u[:, i : i + 1]
            if isinstance(p, Choice):
                column = p.to_unit(p.spread(column[:, 0]))
            elif isinstance(p, Int):
                column = p.to_unit(p.from_unit(column))
            columns.append(column)
        return torch.cat(columns, dim=-1)

    def _check_constraints(self, theta: Tensor, what: str) -> None:
        """Raise ``SpaceError`` unless every row of ``(..., params)`` satisfies every constraint."""
        if self._region is None:
            return
        violations = self._region.violations(theta).reshape(-1, len(self.constraints))
        worst = violations.amax(0).tolist() if len(violations) else []
        for source, violation in zip(self.constraints, worst):
            if not violation <= 0:
                raise SpaceError(
                    f"{what} violates the constraint {source!r} by {violation:.6g}; change a value "
                    "or loosen the constraint"
                )

    @staticmethod
    def _check_width(value: Tensor, width: int, name: str, axis: str) -> None:
        if value.ndim < 1 or value.shape[-1] != width:
            raise ShapeError(
                f"{name} must end in an axis of {width} {axis}, got shape {tuple(value.shape)}"
            )


def _check_constraints(constraints: Sequence[str]) -> tuple[str, ...]:
    sources = (constraints,) if isinstance(constraints, str) else constraints
    if not isinstance(sources, Iterable):
        raise SpaceError(
            f"constraints must be a list of strings, got {type(constraints).__name__}; "
            'write constraints=["w_a + w_b <= 1"], or [] for none'
        )
    sources = tuple(sources)
    for source in sources:
        if not isinstance(source, str):
            raise SpaceError(
                f"a constraint on theta is a string, got {type(source).__name__}: {source!r}; "
                'write "w_a + w_b <= 1"'
            )
    return sources
