"""What is wrong with a configuration, in words of the file: no class of ours or of pydantic's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from ...errors import ConfigError, HyperZeroError
from ...problem.space import Choice, Float, Int

_PASSWORD = re.compile(r"(://[^:/@\s]*):[^\s]*@")
_PRIVATE_KEY = re.compile(r"(-private):?\w*")
# Kinds of parameters, as a file names them.
_KINDS = {"float": Float, "int": Int, "choice": Choice}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_NO_MAPPING = ("model_type", "dataclass_type", "dict_type", "model_attributes_type")
_MOST_LISTED = 40

Place = tuple[str | int, ...]
Fault = tuple[Place, str]


def masked(text: str) -> str:
    """The text with the passwords of its URLs, and private keys, masked."""
    return _PRIVATE_KEY.sub(r"\1:***", _PASSWORD.sub(r"\1:***@", text))


def as_error(name: str, keys: Any, values: Any, error: ValidationError) -> ConfigError:
    """The error that lists everything that is wrong, a line each.

    Args:
        name: of what cannot be used.
        keys: those that are known at the top, by name.
        values: what was validated.
        error: of pydantic.
    """
    faults = list(_faults(tuple(keys), values, error))
    lines = [
        f"  - {'.'.join(map(str, at))}: {what}" if at else f"  - {what}" for at, what in faults
    ]
    return ConfigError(f"{name} cannot be used:\n" + "\n".join(lines), faults)


def _faults(keys: tuple[str, ...], values: Any, error: ValidationError) -> Iterator[Fault]:
    """Each fault once. Where all members of a union failed, those that went further count."""
    faults: list[Fault] = []
    simple: dict[Place, list[Mapping[str, Any]]] = {}  # in pydantic's words, by place
    for detail in error.errors():
        place, cause = _place(values, detail), detail.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError) and cause.faults:  # of a section within
            faults += [((*place, *within), what) for within, what in cause.faults]
        elif isinstance(cause, HyperZeroError):  # it says what was given, where that is no secret
            faults.append((place, str(cause)))
        elif detail["type"] in _UNKNOWN:
            faults.append((place, _unknown(str(place[-1]), _keys_at(keys, values, place))))
        else:
            simple.setdefault(place, []).append(detail)
    deeper = [place for place, _ in faults] + list(simple)
    for place, details in simple.items():
        if not any(p != place and p[: len(place)] == place for p in deeper if place):
            faults.append((place, _in_words(details)))
    yield from sorted(faults, key=lambda fault: [str(part) for part in fault[0]])


def _place(values: Any, detail: Mapping[str, Any]) -> Place:
    """Where in the values; pydantic also names the member of a union that it tried."""
    place: list[str | int] = []
    at = values
    for number, part in enumerate(detail["loc"]):
        is_last = number == len(detail["loc"]) - 1
        is_there = (isinstance(at, Mapping) and part in at) or (
            isinstance(at, list | tuple) and isinstance(part, int)
        )
        if is_there or (is_last and detail["type"] == "missing"):
            place.append(part)
            at = at[part] if is_there else None
    return tuple(place)


def _keys_at(keys: tuple[str, ...], values: Any, place: Place) -> tuple[str, ...]:
    """The keys that are known where an unknown one stands."""
    if len(place) == 1:
        return keys
    at = values
    for part in place[:-1]:
        at = at[part]
    kind = _KINDS.get(str(at.get("kind"))) if isinstance(at, Mapping) else None
    if kind is None or not is_dataclass(kind):
        return ()
    return ("kind", *(field.name for field in fields(kind) if field.init))


def _unknown(key: str, keys: tuple[str, ...]) -> str:
    names = [name for name in keys if name != key]
    near = get_close_matches(key.lower(), names, 1, 0.6)
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    listed = ", ".join(sorted(names)[:_MOST_LISTED])
    return f"unknown key; known here: {listed}" if names else "unknown key"


def _in_words(details: list[Mapping[str, Any]]) -> str:
    kind, given = details[0]["type"], details[0]["input"]
    if kind == "missing":
        return "is missing, and required"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        wrong = given.get("kind") if isinstance(given, Mapping) else None
        near = get_close_matches(str(wrong).lower(), _KINDS, 1, 0.5)
        asked = f"; did you mean {near[0]!r}?" if near and wrong is not None else ""
        got = "no 'kind'" if wrong is None else f"{masked(repr(wrong)):.40}"
        return f"expected a 'kind' that is float, int or choice, got {got}{asked}"
    messages = [
        "expected a section with keys and values" if d["type"] in _NO_MAPPING else d["msg"]
        for d in details
    ]
    return f"{' or '.join(dict.fromkeys(messages))}, got {masked(repr(given)):.80}"
