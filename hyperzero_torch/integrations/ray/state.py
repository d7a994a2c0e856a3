"""The state of a Ray Tune searcher as JSON: validated as a whole before any of it is used."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    Strict,
    ValidationError,
    model_validator,
)

from ...errors import ConfigError
from ...runtime.places import Kind, check_place, json_object

VERSION = 1
_WORDS = ("nan", "inf", "-inf")  # JSON has no numbers for these
_MAX_ERRORS = 3  # listed in the message about a damaged state


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in _WORDS else value


def _variance(value: float) -> float:
    if value < 0 or value == math.inf:
        raise ValueError("a variance is >= 0, or unknown (nan)")
    return value


def _is_state(content: bytes) -> bool:
    return {"suggested", "finished"} <= (json_object(content) or {}).keys()


_STATE_FILE = Kind("a state of HyperZeroSearch", _is_state)
_Number = Annotated[float, Strict(), BeforeValidator(_number)]
_Count = Annotated[int, Strict(), Field(ge=0)]
_Finite = Annotated[FiniteFloat, Strict()]
_Theta = list[_Finite]
_Bound = tuple[str, _Finite, _Finite]
_Finished = tuple[_Theta, list[_Number], list[Annotated[_Number, AfterValidator(_variance)]]]


class State(BaseModel):
    """What a searcher remembers.

    Args:
        version: of this schema.
        space: a line for each parameter, or None before there is a space.
        metric: to be optimised, or None while unknown.
        mode: ``"min"`` or ``"max"``, or None while unknown.
        bounds: name of a metric, the sign of its slack, and the bound.
        seed: of all randomness.
        suggested: number of suggestions so far.
        live: parameters of unfinished trials, by trial.
        finished: of each finished trial the parameters, the value and slacks, and their variances.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[int, Strict(), Field(ge=VERSION, le=VERSION)]
    space: list[str] | None
    metric: str | None
    mode: Annotated[str, Field(pattern=r"\A(min|max)\z")] | None
    bounds: list[_Bound]
    seed: _Count
    suggested: _Count
    live: dict[str, _Theta]
    finished: list[_Finished]

    @model_validator(mode="after")
    def _widths(self) -> State:
        width, columns = len(self.space or ()), 1 + len(self.bounds)
        thetas = self.thetas()
        if any(len(theta) != width for theta in thetas) or (thetas and self.space is None):
            raise ValueError(f"every trial must have {width} parameters, as the space has")
        for _, values, variances in self.finished:
            if len(values) != columns or len(variances) != columns or math.isnan(values[0]):
                raise ValueError(f"every finished trial must have {columns} values and variances")
        return self

    def thetas(self) -> list[list[float]]:
        """Parameters of every trial."""
        return [*self.live.values(), *(theta for theta, _, _ in self.finished)]

    def plain(self) -> dict[str, Any]:
        """JSON values; NaN and infinities become words."""
        rows = [[theta, _words(values), _words(var)] for theta, values, var in self.finished]
        bounds = [list(bound) for bound in self.bounds]
        return self.model_dump() | {"bounds": bounds, "finished": rows}


def _words(values: list[float]) -> list[float | str]:
    return [value if math.isfinite(value) else str(value) for value in values]


def checked(state: Any) -> State:
    """A state from the result of ``State.plain``; anything else is a ``ConfigError``."""
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise ConfigError(
            "this is no state of HyperZeroSearch that this version reads; pass what save() wrote "
            f"(version {VERSION})"
        )
    try:
        return State.model_validate(state)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, e['loc'])) or 'all'}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        ]
        more = f"; and {len(wrong) - _MAX_ERRORS} more" if len(wrong) > _MAX_ERRORS else ""
        raise ConfigError(
            f"the state of HyperZeroSearch is damaged ({'; '.join(wrong[:_MAX_ERRORS])}{more}); "
            "pass what save() wrote, unchanged"
        ) from None


def read(path: Any) -> Any:
    """The content of a file, not validated yet; ``ConfigError`` if it cannot be read as JSON."""
    file = checked_path(path)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{str(path)!r} cannot be read ({error}); name a file that save() wrote"
        ) from None


def check_free(path: Path) -> None:
    """Raises ``ConfigError`` where ``path`` holds anything but an earlier state."""
    check_place(path, f"the searcher's state {str(path)!r}", _STATE_FILE)


def checked_path(path: Any) -> Path:
    """A path; raises ``ConfigError`` for anything that cannot be one."""
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise ConfigError(f"expected the name of a file, got {path!r}")
    return Path(path)
