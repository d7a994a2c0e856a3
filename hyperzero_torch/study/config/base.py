"""The base of all configurations: made in Python or read from a file, validated as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import ConfigError
from .reasons import as_error
from .yaml12 import read_yaml


class Config(BaseModel):
    """Immutable; unknown fields and infinities are refused; all faults are one ``ConfigError``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise as_error(type(self).__name__, type(self).model_fields, values, error) from None

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
        wrong = [key for key in _keys_of(values) if not isinstance(key, str)]
        if wrong:
            raise ConfigError(
                f"{path.name}: the key {wrong[0]!r:.40} is not a text; write it in quotes"
            )
        return cls._of_file(path.name, values)

    @classmethod
    def _of_file(cls, name: str, values: dict[str, Any]) -> Self:
        """Validate the values of a file of this name."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise as_error(name, cls.model_fields, values, error) from None


def _keys_of(value: Any) -> Iterator[Any]:
    """All keys of mappings, at any depth."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        yield from _keys_of(part)


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
