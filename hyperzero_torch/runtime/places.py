"""Where a file may be written: never over one of another kind.

A path that is mistyped, or completed wrongly by a shell, may name a journal or a study file. What
stands at a path decides whether it is written to, and not the name of the option that gave it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError

# No file of this package is larger; of a larger one no more is read.
_MOST_BYTES = 2**28
_STARTS = (
    (b"SQLite format 3\0", "a SQLite database, such as a journal"),
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"<!doctype html", "an HTML page"),
    (b"<!DOCTYPE html", "an HTML page"),
    (b"# HELP ", "a file of metrics"),
)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        name: with its article, e.g. ``"a plan"``.
        is_own: whether the content of a file, which is not empty, is of this kind.
    """

    name: str
    is_own: Callable[[bytes], bool]


def check_place(path: str | Path, what: str, kind: Kind) -> None:
    """Refuse a path at which a file of this kind cannot be written, or would destroy another one.

    An empty file may be replaced, as scripts make them. Nothing is written here.

    Args:
        path: where the file is to be.
        what: names the path in messages, e.g. ``"--plan plan.json"``.
        kind: of the file; an existing file of this kind may be replaced.
    Raises:
        ConfigError: there is no folder, it cannot be written to, or something else is there.
    """
    place = Path(path)
    try:
        _check_folder(place, what)
        if place.is_dir():
            raise ConfigError(f"{what} cannot be written: it is a folder; name a file in it")
        if not os.path.lexists(place):
            return
        if not place.exists():
            raise ConfigError(
                f"{what} cannot be written: it is a symbolic link to nothing; remove it, or name "
                "another file"
            )
        if not stat.S_ISREG(place.stat().st_mode):
            raise ConfigError(
                f"{what} cannot be written: it is not a regular file; name one, or a new file"
            )
        with place.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, RuntimeError, ValueError) as error:  # no access, or circular links
        raise ConfigError(
            f"{what} cannot be written ({_reason(error)}); name another file"
        ) from None
    is_own = not content or (len(content) <= _MOST_BYTES and kind.is_own(content))
    if not is_own:
        raise ConfigError(
            f"{what} cannot be written: the file there holds something else, {described(content)}; "
            f"it is not {kind.name} and was not changed. Name another file, or move that one away "
            "first"
        )


def described(content: bytes) -> str:
    """What a file seems to be, in words."""
    for start, words in _STARTS:
        if content.startswith(start):
            return words
    document = json_object(content)
    if document is not None:
        names = ", ".join(repr(name)[:30] for name in list(document)[:4])
        return f"a JSON object with {names}" if names else "an empty JSON object"
    # Not a word of a text is repeated: it may be a key.
    return "a binary file" if b"\0" in content[:4096] else "a text"


def json_object(content: bytes) -> dict[str, Any] | None:
    """The JSON object that a file holds; None where it holds anything else."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _check_folder(place: Path, what: str) -> None:
    folder = place.parent
    if not folder.is_dir():
        raise ConfigError(
            f"{what} cannot be written: there is no folder {str(folder)!r}; create it first, or "
            "name a file in another one"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{what} cannot be written: no permission to write to {str(folder)!r}; name a file in "
            "a folder that can be written to"
        )


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
