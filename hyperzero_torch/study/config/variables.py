"""Variables of the environment in the addresses of a study file: ``${DATABASE_PASSWORD}``.

Only addresses have them: files, journals and URLs. Their values are taken when the file is read,
stand in no message, and are not written to the journal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigError

#: Where addresses stand in a study file; "*" is each entry of a list. A source may be a plain text.
ADDRESSES: tuple[tuple[str, ...], ...] = (
    ("journal",),
    ("revocations",),
    ("sources", "*"),
    ("sources", "*", "source"),
    ("live", "exposures"),
    ("live", "events"),
    ("live", "covariates"),
    ("live", "flags"),
    ("live", "table"),
    ("live", "growthbook"),
    ("live", "unleash", "url"),
    ("live", "monitoring", "address"),
    ("live", "alerts", "webhook"),
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\$(?:\$\{|\{([^{}]*)(\}?))")
_SHORTEST_HIDDEN = 4  # a shorter value would be taken out of the middle of words


class Variables:
    """The variables that a study file names, and their values.

    Args:
        environment: by default that of this process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._values: dict[str, str] = {}

    def filled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A study file's values with the variables of its addresses filled in.

        ``$${`` stands for ``${``.

        Raises:
            ConfigError: a variable is not set or is empty, or its name is no name; the message
                names all of them.
        """
        faults: list[tuple[tuple[str | int, ...], str]] = []
        result: dict[str, Any] = dict(values)
        for path in ADDRESSES:
            result = self._fill(result, path, (), faults)
        if faults:
            lines = [f"  - {'.'.join(map(str, place))}: {what}" for place, what in faults]
            raise ConfigError("addresses name variables:\n" + "\n".join(lines), faults)
        return result

    def hide(self, text: str) -> str:
        """A message with the names of variables in the place of their values."""
        for name, value in sorted(self._values.items(), key=lambda item: -len(item[1])):
            if len(value) >= _SHORTEST_HIDDEN:
                for written in (value, repr(value)[1:-1]):
                    text = text.replace(written, f"${{{name}}}")
        return text

    def _fill(
        self,
        value: Any,
        path: Sequence[str],
        place: tuple[str | int, ...],
        faults: list[tuple[tuple[str | int, ...], str]],
    ) -> Any:
        if not path:
            return self._text(value, place, faults) if isinstance(value, str) else value
        step, rest = path[0], path[1:]
        if step == "*" and isinstance(value, list):
            return [self._fill(v, rest, (*place, i), faults) for i, v in enumerate(value)]
        if isinstance(value, dict) and step in value:
            return value | {step: self._fill(value[step], rest, (*place, step), faults)}
        return value

    def _text(
        self,
        text: str,
        place: tuple[str | int, ...],
        faults: list[tuple[tuple[str | int, ...], str]],
    ) -> str:
        def value(reference: re.Match[str]) -> str:
            name, end = reference.groups()
            if name is None:
                return "${"
            if not end or not _NAME.fullmatch(name):
                what = "'${' begins the name of a variable, as in ${DATABASE_URL}; write '$${' for "
                faults.append((place, f"{what}the characters themselves"))
                return ""
            if not self._environment.get(name):
                what = f"the environment variable {name} is not set"
                faults.append((place, f"{what}; set it where this command runs"))
                return ""
            self._values[name] = self._environment[name]
            return self._values[name]

        return _REFERENCE.sub(value, text)
