"""A table in a payload of GrowthBook: the JSON file that its SDKs read features from.

    {"features": {"value-model": {"defaultValue": {"kind": "hyperzero-torch ...", ...}}}}

The feature serves the table to everybody, and the application assigns users by it. An experiment
rule of GrowthBook's own would tell only 10,000 places apart, and knows no time for the lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...runtime.files import locked
from .files import checked_path, read_object, replace_file, to_json


class GrowthBookFile:
    """A feature's default value in a file of features; other features in the file are kept.

    Args:
        path: the payload, JSON, in a folder that exists.
        feature: the feature's key; a feature of its own, without rules.
    Raises:
        ConfigError: the path or the key is empty.
    Source: GrowthBook's documents "Build Your Own SDK" and "SDK payload".
    """

    def __init__(self, path: str | Path, feature: str = "value-model") -> None:
        self.path = checked_path(path)
        if not isinstance(feature, str) or not feature:
            raise ConfigError(f"a feature's key is a text that is not empty, got {feature!r:.60}")
        self.feature = feature

    def __str__(self) -> str:
        return f"feature {self.feature!r:.100} in {str(self.path)!r}"

    def held(self) -> AbstractContextManager[None]:
        """A lock on the file, which all its writers take."""
        return locked(self.path)

    def read(self) -> Mapping[str, Any] | None:
        """The feature's default value; None where there is no such feature.

        Raises:
            ConfigError: the file cannot be read, or is no payload of features.
        """
        feature = self._document()["features"].get(self.feature)
        if feature is None:
            return None
        value = feature.get("defaultValue") if isinstance(feature, dict) else None
        if not isinstance(value, dict) or feature.get("rules"):
            raise ConfigError(
                f"{self} belongs to others: it has rules, or a default value that is no object; it "
                "was not changed: name a feature of its own"
            )
        return value

    def write(self, table: Mapping[str, Any]) -> None:
        """Replace the feature; the same table again does not touch the file.

        Raises:
            ConfigError: the file cannot be read or written; it is unchanged.
        """
        document = self._document()
        features = {**document["features"], self.feature: {"defaultValue": dict(table)}}
        replace_file(self.path, to_json({**document, "features": features}))

    def _document(self) -> dict[str, Any]:
        if not self.path.exists():
            return {"features": {}}
        document = read_object(self.path)
        if not isinstance(document.get("features"), dict):
            raise ConfigError(
                f'{str(self.path)!r} is not a payload of GrowthBook: it has no object "features"; '
                "it was not changed: name another file"
            )
        return document
