"""Columns of a file under other names than ours: ``round=hour,candidate=arm``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigError, ReadingsError


def parse_columns(texts: Sequence[str], allowed: Sequence[str]) -> dict[str, str]:
    """Our name of a column to the file's, from texts such as ``round=hour,candidate=arm``.

    Args:
        texts: each holds one or more pairs, separated by commas.
        allowed: our names.
    Raises:
        ConfigError: not such a text, a name that is not ours, or a name twice.
    """
    names: dict[str, str] = {}
    for pair in (pair for text in texts for pair in text.split(",")):
        ours, mark, theirs = (part.strip() for part in pair.partition("="))
        if not mark or not theirs:
            raise ConfigError(
                f"--columns expects ours=theirs, such as round=hour,candidate=arm; got {pair!r}"
            )
        if ours not in allowed:
            raise ConfigError(
                f"--columns: {ours!r} is no column of readings; before '=' stands one of "
                f"{', '.join(allowed)}, and after it the name in the file"
            )
        if ours in names or theirs in names.values():
            raise ConfigError(f"--columns names a column twice: {pair!r}; name each once")
        names[ours] = theirs
    return names


def renamed(
    columns: Mapping[str, Sequence[Any]], names: Mapping[str, str], place: str
) -> dict[str, Sequence[Any]]:
    """The columns under our names; those without another name keep theirs.

    Args:
        columns: of a file.
        names: our name of a column to the file's.
        place: the file, for messages.
    Raises:
        ReadingsError: the file has no such column, or has a column of our name as well.
    """
    missing = [theirs for theirs in names.values() if theirs not in columns]
    if missing:
        raise ReadingsError(f"{place} has no column {missing}; its columns are {list(columns)}")
    ours = {theirs: name for name, theirs in names.items()}
    twice = [name for name in columns if name in names and name not in ours]
    if twice:
        instead = [names[name] for name in twice]
        raise ReadingsError(
            f"{place} has a column {twice} beside {instead}, which should be read in its place; "
            "rename or leave out one of the two"
        )
    return {ours.get(name, name): values for name, values in columns.items()}
