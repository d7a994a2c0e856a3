"""Constraints that nothing can break: refused, because they guard nothing.

A metric that is never negative falls by at most 100 %, so a delta lies in [-1, inf). Interval
arithmetic bounds the slack of an expression over all such deltas. Where the bound is not negative,
no reading can ever break the constraint: almost always a percentage was written as a fraction, as
in ``watch_time >= -5``, which means -500 %.

The bound is never above the true minimum, so no constraint is refused by mistake. It equals the
minimum where each metric stands once. A level may be negative, so a constraint on a level passes:
that is how a metric that can be negative (profit) is guarded.

Source: Moore (1966), Interval Analysis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from ..errors import ProblemError
from .grammar import Parser, Token
from .terms import Constraint, Term

_INF = math.inf
# A function may compute in a unit of its own. It is checked where its bound may be a percentage.
_LARGEST_PERCENTAGE = 100.0
# An affine function is recognised on this many points, up to this delta, within this rounding.
_POINTS, _FAR, _TOLERANCE = 64, 1e3, 1e-5


class Interval(NamedTuple):
    """All values of an expression lie in ``[low, high]``; NaN where some may be no number."""

    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether every value is a number."""
        return not (math.isnan(self.low) or math.isnan(self.high))


_UNKNOWN = Interval(math.nan, math.nan)
_DELTA = Interval(-1.0, _INF)


class _Reach(Parser[Interval]):
    """Values are intervals. The string has been read once by ``expressions``: it is valid."""

    def __init__(self, source: str, metrics: Sequence[str]) -> None:
        super().__init__(source, metrics, "metric", "", "", "")

    def constant(self, value: float) -> Interval:
        return Interval(value, value)

    def negative(self, value: Interval) -> Interval:
        return Interval(-value.high, -value.low)

    def power(self, base: Interval, token: Token) -> Interval:
        exponent = self.signed()
        if exponent.low != exponent.high:
            return _UNKNOWN
        return _power(base, exponent.low)

    def operations(self, first: Interval, rest: Sequence[tuple[Token, Interval]]) -> Interval:
        value = first
        for token, operand in rest:
            value = _OPERATORS[token.text](value, operand)
        return value

    def name(self, token: Token) -> Interval:
        if token.kind == "quoted" or self.peek().symbol != "(":
            return _DELTA
        opening = self.next()
        arguments = [self.sum()]
        while self.peek().symbol == ",":
            self.next()
            arguments.append(self.sum())
        self.close(opening)
        return _FUNCTIONS[token.text](*arguments)


def refuse_unbreakable(constraint: str | Constraint, term: Term, metrics: Sequence[str]) -> None:
    """Refuse a constraint whose slack is never negative where no metric falls by over 100 %.

    Raises:
        ProblemError: the message says what the bound means, and what was most likely meant.
    """
    if term.sees_levels:
        return
    text = constraint if isinstance(constraint, str) else constraint.function
    if isinstance(text, str):
        least, bound = _of_expression(constraint, text, term, metrics)
    elif 1 <= abs(term.bound) <= _LARGEST_PERCENTAGE:
        least, bound = _of_function(term, len(metrics)), term.bound if term.sign > 0 else None
    else:
        return
    if not least >= 0:  # a slack that may be NaN does not hold
        return
    if bound is not None and bound <= -1:
        reason = f"{bound:g} is {bound * 100:g} %, and no metric that is >= 0 falls below -100 %"
        is_percent = isinstance(text, str) and "%" in text
        meant = "" if is_percent else f"did you mean {bound / 100:g} ({bound:g} %)? "
    else:
        reason = f"its slack is at least {least:g} wherever no metric falls by more than 100 %"
        meant = ""
    raise ProblemError(
        f"the constraint {term.name!r} can never be broken: {reason}; {meant}A bound on a delta is "
        "a fraction, such as -0.05 or -5%. A metric that can be negative is guarded by its level, "
        "as in 'level(profit) >= 100'"
    )


def _of_expression(
    constraint: str | Constraint, text: str, term: Term, metrics: Sequence[str]
) -> tuple[float, float | None]:
    """The least slack, and the lower bound where it is a constant."""
    reach = _Reach(text, metrics)
    if isinstance(constraint, str) or constraint.at_least is constraint.at_most is None:
        greater, less = reach.comparison()
        return _minus(greater, less).low, less.low if less.low == less.high else None
    bound = Interval(term.bound, term.bound)
    if term.sign > 0:
        return _minus(reach.sum(), bound).low, term.bound
    return _minus(bound, reach.sum()).low, None


def _of_function(term: Term, num_metrics: int) -> float:
    """The least slack of an affine function of the deltas; -inf for any other function."""
    generator = torch.Generator().manual_seed(0)
    far = torch.rand(_POINTS, num_metrics, generator=generator, dtype=torch.float64)
    # From -1 to _FAR, half of the points between -1 and 1: where functions bend.
    points = torch.cat([2 * far - 1, far * (_FAR + 1) - 1])
    units = torch.eye(num_metrics, dtype=torch.float64)
    try:
        with torch.no_grad():
            zero = term(torch.zeros(1, num_metrics, dtype=torch.float64), points[:1])
            slopes = term(units, units) - zero
            values = term(points, points)
    except Exception:  # a function may refuse deltas of this size; then nothing is known about it
        return -_INF
    expected = zero + points @ slopes
    scale = zero.abs() + points.abs() @ slopes.abs()
    is_affine = bool(((values - expected).abs() <= _TOLERANCE * scale).all())
    if not is_affine or bool((slopes < -_TOLERANCE * slopes.abs().max()).any()):
        return -_INF
    return float(zero - slopes.sum()) if bool((slopes > 0).any()) else -_INF


def _interval(*ends: float) -> Interval:
    """The hull of some values; unknown where one is no number, or all are infinite."""
    low, high = min(ends), max(ends)
    if any(math.isnan(end) for end in ends) or low == _INF or high == -_INF:
        return _UNKNOWN
    return Interval(low, high)


def _plus(a: Interval, b: Interval) -> Interval:
    return _interval(a.low + b.low, a.high + b.high)


def _minus(a: Interval, b: Interval) -> Interval:
    return _interval(a.low - b.high, a.high - b.low)


def _times(a: Interval, b: Interval) -> Interval:
    if not (a.is_known and b.is_known):
        return _UNKNOWN
    # No delta is infinite: 0 times an unbounded interval is 0.
    return _interval(*(x * y if x and y else 0.0 for x in a for y in b))


def _over(a: Interval, b: Interval) -> Interval:
    if b.low <= 0 <= b.high:
        return _UNKNOWN
    return _times(a, Interval(1 / b.high, 1 / b.low))


def _power(base: Interval, exponent: float) -> Interval:
    is_whole = exponent == math.floor(exponent)
    if (exponent < 0 and base.low <= 0) or (base.low < 0 and not is_whole):
        return _UNKNOWN
    if base.low < 0 and exponent % 2 == 0:
        base = _abs(base)
    try:
        return _interval(*(end**exponent for end in base))
    except OverflowError:
        return _UNKNOWN


def _abs(a: Interval) -> Interval:
    return _interval(*map(abs, a), *([0.0] if a.low <= 0 <= a.high else []))


def _least(*values: Interval) -> Interval:
    if not all(v.is_known for v in values):
        return _UNKNOWN
    return Interval(min(v.low for v in values), min(v.high for v in values))


def _most(*values: Interval) -> Interval:
    if not all(v.is_known for v in values):
        return _UNKNOWN
    return Interval(max(v.low for v in values), max(v.high for v in values))


def _exp(a: Interval) -> Interval:
    try:
        return _interval(*map(math.exp, a))
    except OverflowError:
        return _UNKNOWN


def _log(a: Interval) -> Interval:
    return _UNKNOWN if a.low <= 0 else _interval(*map(math.log, a))


def _sqrt(a: Interval) -> Interval:
    return _UNKNOWN if a.low < 0 else _interval(*map(math.sqrt, a))


_OPERATORS: dict[str, Callable[[Interval, Interval], Interval]] = {
    "+": _plus,
    "-": _minus,
    "*": _times,
    "/": _over,
}
_FUNCTIONS: dict[str, Callable[..., Interval]] = {
    "abs": _abs,
    "exp": _exp,
    "log": _log,
    "sqrt": _sqrt,
    "min": _least,
    "max": _most,
}
