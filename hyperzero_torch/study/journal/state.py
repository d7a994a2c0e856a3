"""A study as plain tensors, numbers and strings, for ``torch.save`` and ``weights_only=True``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...errors import ConfigError
from .base import ENTRY_KINDS, FLOATS, Decision, Entry, StudyHeader, flaw, kind_of, values_of

#: What Python and PyTorch raise for values of other types than a study writes.
FOREIGN_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_FORMAT = 1
_JSON = {"config", "details", "evidence", "parameters"}


def pack(header: StudyHeader, entries: Sequence[Entry]) -> dict[str, Any]:
    """The study as nested dicts and lists of tensors, numbers and strings."""
    return {
        "format": _FORMAT,
        "study": header.study,
        "seed": header.seed,
        "problem": json.dumps(dict(header.problem)),
        "entries": [
            {"entry": kind_of(entry)}
            | {name: _pack(name, value) for name, value in values_of(entry).items()}
            for entry in entries
        ],
    }


def unpack(state: Mapping[str, Any]) -> tuple[StudyHeader, list[Entry]]:
    """The inverse of ``pack``.

    Raises:
        ConfigError: not a packed study, or one of another format.
    """
    written = state.get("format") if isinstance(state, Mapping) else None
    if type(written) is not int or written != _FORMAT:
        raise ConfigError(
            f"expected what tuner.state_dict() returned (format {_FORMAT}), got "
            f"{type(state).__name__} with {list(state)[:6] if isinstance(state, Mapping) else ''}"
        )
    try:
        if not isinstance(state["study"], str) or type(state["seed"]) is not int:
            raise TypeError(f"study {state['study']!r:.40} with seed {state['seed']!r:.40}")
        header = StudyHeader(state["study"], state["seed"], json.loads(state["problem"]))
        entries: list[Entry] = []
        for packed in state["entries"]:
            values = {name: _unpack(name, v) for name, v in packed.items() if name != "entry"}
            # Earlier states stored the type as "kind", which is also a field of decisions.
            earlier = "decided" if "reason" in packed else packed.get("kind")
            kind = ENTRY_KINDS[packed.get("entry", earlier)]
            if "entry" not in packed and kind is not Decision:
                del values["kind"]
            entries.append(kind(**values))
        flaws = [reason for reason in map(flaw, entries) if reason is not None]
    except FOREIGN_ERRORS as error:
        raise ConfigError(
            f"the state is incomplete or damaged: {type(error).__name__}: {error!s:.300}"
        ) from None
    if not isinstance(header.problem, dict) or not entries:
        flaws.append("it has no entries, or no problem")
    if flaws:
        raise ConfigError(f"the state is incomplete or damaged: {flaws[0]}")
    return header, entries


def _pack(name: str, value: Any) -> Any:
    if name in _JSON:
        return json.dumps(dict(value))
    if isinstance(value, tuple):
        return torch.tensor(value, dtype=torch.float64 if name in FLOATS else torch.int64)
    return value


def _unpack(name: str, value: Any) -> Any:
    if name in _JSON:
        return json.loads(value)
    return tuple(value.tolist()) if isinstance(value, torch.Tensor) else value
