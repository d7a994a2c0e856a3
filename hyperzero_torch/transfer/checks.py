"""What a source must be, checked in one pass: every flaw is found, and all are named at once."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError

_MOST_NAMED = 6


class Flaws:
    """Collects what is wrong, and says all of it in one error."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.found: list[str] = []

    def add(self, flaw: str) -> None:
        """Note a flaw."""
        self.found.append(flaw)

    def throw(self) -> None:
        """Raise ``ConfigError`` where any flaw was noted."""
        if self.found:
            raise ConfigError(f"{self.what} cannot be used:\n  - " + "\n  - ".join(self.found))


def shown(items: Iterable[Any]) -> str:
    """A few of many, for a message."""
    listed = list(items)
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return f"{listed[:_MOST_NAMED]}{more}"


def names(flaws: Flaws, what: str, given: Any) -> tuple[str, ...]:
    """Names, at least one, none empty and none twice."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        flaws.add(f"{what} must be a list of names, got {given!r:.60}")
        return ()
    listed = tuple(given)
    if not listed:
        flaws.add(f"{what} is empty; name at least one")
    wrong = [name for name in listed if not isinstance(name, str) or not name.strip()]
    if wrong:
        flaws.add(f"{what} must be non-empty strings, got {shown(wrong)}")
        return ()
    twice = sorted(name for name, times in Counter(listed).items() if times > 1)
    if twice:
        flaws.add(f"{what} come twice: {shown(twice)}")
    return listed


def settings(flaws: Flaws, given: Any) -> tuple[dict[str, Any], ...]:
    """Settings: mappings over the same parameters, values finite numbers, strings or bools."""
    if isinstance(given, Mapping | str) or not isinstance(given, Iterable):
        flaws.add(f"parameters must be a list of settings, got {type(given).__name__}")
        return ()
    rows = list(given)
    if not rows:
        flaws.add("parameters is empty; a source needs at least one setting")
        return ()
    if wrong := [i for i, row in enumerate(rows) if not isinstance(row, Mapping) or not row]:
        flaws.add(f"settings {shown(wrong)} are not mappings from parameter names to values")
        return ()
    wanted = set(rows[0])
    if wrong := [i for i, row in enumerate(rows) if set(row) != wanted]:
        flaws.add(
            f"settings {shown(wrong)} do not name the parameters of the first, "
            f"{shown(sorted(map(str, wanted)))}"
        )
    names(flaws, "parameter names", rows[0])
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
    for i, row in enumerate(plain):
        for name, value in row.items():
            if not isinstance(value, str | bool | int | float) or (
                isinstance(value, float) and not math.isfinite(value)
            ):
                flaws.add(
                    f"setting {i}: {name!r} = {value!r:.40} is no finite number, string or bool"
                )
                return tuple(plain)  # one is enough: there may be thousands
    return tuple(plain)


def evidence(flaws: Flaws, mean: Any, var: Any, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mean and variance ``(settings, metrics)``, float64: NaN and infinity where not known."""
    mean, var = matrix(flaws, "mean", mean, shape), matrix(flaws, "var", var, shape)
    if mean is None or var is None:
        return torch.empty(0), torch.empty(0)
    known = ~mean.isnan()
    if bool(mean.isinf().any()):
        flaws.add(f"mean is infinite in rows {shown(rows_of(mean.isinf()))}; NaN is 'not known'")
    wrong = known & ~((var > 0) & (var < torch.inf))
    if bool(wrong.any()):
        values = sorted(set(var[wrong].tolist()))
        flaws.add(
            "var must be finite and above 0 wherever mean is known, got "
            f"{shown(values)} in rows {shown(rows_of(wrong))}"
        )
    if not bool(known.any()):
        flaws.add("every mean is NaN: there is no evidence at all")
    return torch.where(known, mean, torch.nan), torch.where(known, var, torch.inf)


def matrix(flaws: Flaws, what: str, given: Any, shape: tuple[int, ...]) -> Tensor | None:
    """A copy as float64 on the CPU, of this shape; None, and a flaw, where it cannot be."""
    try:
        if isinstance(given, Tensor):
            value = given.detach().to("cpu", torch.float64).clone()
        else:
            value = torch.from_numpy(np.array(given, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        flaws.add(f"{what} must be numbers, got {given!r:.60}")
        return None
    if tuple(value.shape) != shape:
        flaws.add(f"{what} must have shape {shape}, got {tuple(value.shape)}")
        return None
    return value


def floats(flaws: Flaws, what: str, given: Any) -> dict[str, float]:
    """A mapping from names to finite numbers."""
    if not isinstance(given, Mapping):
        flaws.add(f"{what} must map names to numbers, got {type(given).__name__}")
        return {}
    kept: dict[str, float] = {}
    for name, value in given.items():
        number = _plain(value)
        if not isinstance(name, str) or not name.strip():
            flaws.add(f"{what}: a name must be a non-empty string, got {name!r:.40}")
        elif isinstance(number, bool) or not isinstance(number, numbers.Real):
            flaws.add(f"{what}[{name!r}] must be a number, got {value!r:.40}")
        elif not math.isfinite(float(number)):
            flaws.add(f"{what}[{name!r}] must be finite, got {number}; leave out what is not known")
        else:
            kept[name] = float(number)
    return kept


def covariance(flaws: Flaws, shared: Any, var: Tensor, num_metrics: int) -> Tensor | None:
    """The common part of the errors ``(metrics, n, n)``: symmetric, its diagonal within var."""
    num = len(var)
    value = matrix(flaws, "shared", shared, (num_metrics, num, num))
    if value is None:
        return None
    known = var.isfinite().T
    value = torch.where(known.unsqueeze(-1) & known.unsqueeze(-2), value, 0.0)
    own = value.diagonal(dim1=-2, dim2=-1)
    within = torch.where(known, var.T, 0.0)
    if not bool(value.isfinite().all()) or not torch.allclose(value, value.mT, rtol=1e-9, atol=0):
        flaws.add("shared must be finite and symmetric")
    elif not bool((own <= within * (1 + 1e-9)).all()) or not bool((own >= 0).all()):
        flaws.add("shared is a part of var: its diagonal must lie between 0 and var")
    return value


def rows_of(mask: Tensor) -> Sequence[int]:
    """Rows in which anything is True."""
    rows: list[int] = mask.any(-1).nonzero().flatten().tolist()
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 0:
        return value.item()
    return value.item() if isinstance(value, np.generic) else value
