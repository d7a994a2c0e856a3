"""The one file that an updater writes: found, read, replaced in one step."""

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

# Readers that poll compare times as float seconds, which are 2.4e-7 s apart in this century.
_TICK_NS = 1_000_000


def checked_path(path: str | Path) -> Path:
    """The path of a file that may be there or not, with symbolic links followed.

    Whoever links to a file in another folder wants that file written, not the link replaced.
    """
    if not str(path) or "\0" in str(path):
        raise ConfigError(f"{str(path)!r} is no path; name a file in a folder that exists")
    return Path(os.path.realpath(path))


def to_json(document: Mapping[str, Any]) -> str:
    """JSON in ASCII: read the same in any locale, embedded in a page as in a file.

    Raises:
        InputError: a number that JSON cannot hold.
    """
    try:
        text = json.dumps(document, indent=1, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"this cannot be written as JSON: {error}") from None
    # These three occur in JSON inside texts only, where their escapes mean the same.
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text + "\n"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        found = json.loads(
            path.read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite
        )
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{str(path)!r} is no JSON ({error}); it is left as it is: mend it or move it away"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(
            f"{str(path)!r} holds a JSON {type(found).__name__} where an object was expected; it "
            "is left as it is: name another file"
        )
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def replace_file(path: Path, text: str) -> None:
    """Put ``text`` in the place of the file in one step; the same text again touches nothing.

    The file's permissions are kept, and its time of change grows even where the clock stepped
    back or two changes fall into one tick: readers that poll this time miss no change.

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
    with contextlib.suppress(OSError):  # the file is in place: what is left is no failure to serve
        after = path.stat()
        if after.st_mtime_ns < before.st_mtime_ns + _TICK_NS:
            os.utime(path, ns=(after.st_atime_ns, before.st_mtime_ns + _TICK_NS))
