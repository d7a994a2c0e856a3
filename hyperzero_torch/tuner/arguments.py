"""Arguments of a tuner's methods, checked: each function returns the value, or raises one error."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch

from ..errors import ConfigError, ReadingsError, RoundError
from ..problem.problem import Problem
from ..study.history import History
from ..study.readings import Readings


def as_seed(seed: Any) -> int | None:
    """A seed, or None for the study's own."""
    if seed is not None and not _is_whole(seed, below=2**63):
        raise ConfigError(f"a seed is a whole number >= 0, got {seed!r}")
    return None if seed is None else int(seed)


def as_study_name(name: Any) -> str:
    """The name of a study."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"a study is named by a text that is not empty, got {name!r}")
    return name


def as_device(device: torch.device | str) -> torch.device:
    """A device on which a tensor can be made, with its number: ``cuda:0`` where it was ``cuda``."""
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ConfigError(f"device {device!r} cannot be used here: {error}") from None


def check_problem(problem: Problem, device: torch.device) -> None:
    """Raise ``ProblemError`` unless its terms work where the tuner computes; they do on the CPU."""
    if device.type != "cpu":
        problem.check_on(device)


def as_round(round: Any) -> int | None:
    """The number of a round, or None for the next."""
    if round is not None and not _is_whole(round, below=2**53):
        raise RoundError(f"a round is a whole number >= 0, got {round!r}")
    return None if round is None else int(round)


def as_trigger(trigger: Any) -> str | None:
    """The text that names a message."""
    if trigger is not None and not isinstance(trigger, str):
        raise RoundError(f"a trigger is the text that names a message, got {trigger!r}")
    return trigger


def as_messages(readings: Any) -> Sequence[Readings]:
    """One message or several, as a sequence."""
    messages: Sequence[Any] = readings if isinstance(readings, list | tuple) else [readings]
    for message in messages:
        if not isinstance(message, Readings):
            raise ReadingsError(
                f"tell expects hz.Readings or a list of them, got {type(message).__name__}; "
                "make one with hz.Readings(...) or hz.Readings.from_frame(frame)"
            )
    return messages


def round_to_plan(history: History, wanted: int | None) -> int:
    """The round that is asked for: planned already, or later than the last."""
    last, carried = history.last_round, history.carried
    if wanted is None:
        return history.next_round
    if carried is not None and wanted <= carried.round:
        raise RoundError(
            f"round {wanted} belongs to study {carried.predecessor!r}, whose last is "
            f"{carried.round}; use a later round, or omit it to take the next"
        )
    if wanted not in history.plans and last is not None and wanted < last:
        raise RoundError(
            f"round {wanted} was never planned and lies before the last planned round "
            f"{last}; use a later round, or omit it to take the next"
        )
    return wanted


def _is_whole(value: Any, below: int) -> bool:
    """Whether a value is a whole number in [0, below), NumPy's included; booleans are not."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return False
    return 0 <= int(value) < below
