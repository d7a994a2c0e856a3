"""The names of a problem's metrics, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ProblemError


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple; ``ProblemError`` unless they are texts that differ, at least one."""
    if isinstance(metrics, str):
        raise ProblemError(f"metrics must be a list of names, got the string {metrics!r}")
    if not isinstance(metrics, Iterable):
        raise ProblemError(f"metrics must be a list of names, got {type(metrics).__name__}")
    names = tuple(metrics)
    if not names or not all(isinstance(n, str) and n.strip() and "`" not in n for n in names):
        raise ProblemError(f"metrics must be names, at least one, got {list(names)}")
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise ProblemError(f"metric names must differ, these come twice: {repeated}")
    return names
