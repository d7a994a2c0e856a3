"""The base of all configurations: made in Python or read from a file, validated as a whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import ConfigError, HyperZeroError
from .yaml12 import read_yaml

_PASSWORD = re.compile(r"(://[^:/@\s]*):[^\s]*@")
_PRIVATE_KEY = re.compile(r"(-private):?\w*")


class Config(BaseModel):
    """Immutable; unknown fields and infinities are refused; all faults are one ``ConfigError``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_reasons(type(self).__name__, error)) from None

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a ``.json`` file, or else YAML as version 1.2 reads it (see ``yaml12``).

        Raises:
            ConfigError: no such file, a damaged file, a key that stands twice, or values that are
                not valid.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            values = _read_json(text) if path.suffix == ".json" else read_yaml(text)
        except OSError as error:
            raise ConfigError(f"the configuration {path.name!r} cannot be read: {error}") from None
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"{path.name} is not valid {path.suffix}: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path.name} must hold a mapping, got {type(values).__name__}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_reasons(path.name, error)) from None


def _read_json(text: str) -> Any:
    """JSON whose objects name each key once."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"keys stand twice: {twice}; keep one of each")
        return values

    return json.loads(text, object_pairs_hook=unique)


def masked(text: str) -> str:
    """The text with the passwords of its URLs, and private keys, masked."""
    return _PRIVATE_KEY.sub(r"\1:***", _PASSWORD.sub(r"\1:***@", text))


def _reasons(name: str, error: ValidationError) -> str:
    lines = []
    for e in error.errors():
        place = ".".join(str(part) for part in e["loc"])
        cause = e.get("ctx", {}).get("error")
        message = str(cause) if isinstance(cause, HyperZeroError) else e["msg"]
        got = "" if e["type"] in ("missing",) else f", got {masked(repr(e['input'])):.80}"
        lines.append(f"  - {place}: {message}{got}" if place else f"  - {message}")
    return f"{name} cannot be used:\n" + "\n".join(lines)
