"""The file that an updater writes: its path, reading it, and replacing it in one step."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ConfigError, InputError
from ...runtime.files import write_atomically

# Readers that poll compare times as float seconds, which resolve 2.4e-7 s in this century.
_TICK_NS = 1_000_000


def checked_path(path: str | Path) -> Path:
    """The path of a file that may not exist yet. Symbolic links are followed, so that the file
    they point to is written and the link is kept.

    Raises:
        ConfigError: the path is empty or has a NUL.
    """
    if not str(path) or "\0" in str(path):
        raise ConfigError(f"{str(path)!r} is not a path; name a file in a folder that exists")
    return Path(os.path.realpath(path))


def to_json(document: Mapping[str, Any]) -> str:
    """JSON in ASCII, which reads the same in any locale, and embedded in a page.

    Raises:
        InputError: a value that JSON cannot hold.
    """
    try:
        text = json.dumps(document, indent=1, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"this cannot be written as JSON: {error}") from None
    # In JSON these three occur only inside texts, where an escape means the same.
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text + "\n"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        document = json.loads(
            path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite
        )
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{str(path)!r} is not JSON ({error}); it was not changed: repair it, or name another "
            "file"
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(
            f"{str(path)!r} holds a JSON {type(document).__name__} where an object was expected; "
            "it was not changed: name another file"
        )
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def replace_file(path: Path, text: str) -> None:
    """Replace the file's content in one step; the same text again does not touch the file.

    The file's permissions are kept. Its time of change increases even where the clock stepped back
    or two changes fall into one tick, so that readers that poll this time miss no change.

    Raises:
        ConfigError: the file cannot be written; it is unchanged.
    """
    try:
        before = path.stat()
        if path.read_bytes() == text.encode():
            return
    except FileNotFoundError:
        write_atomically(path, text)
        return
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror})") from None
    write_atomically(path, text)
    with contextlib.suppress(OSError):  # the plan is served already
        after = path.stat()
        if after.st_mtime_ns < before.st_mtime_ns + _TICK_NS:
            os.utime(path, ns=(after.st_atime_ns, before.st_mtime_ns + _TICK_NS))
