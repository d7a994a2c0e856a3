"""Files with keys: nobody but their owner may read or change them, or they prove nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import ConfigError


def read_secret(path: str | Path, what: str) -> str:
    """The text of a file that holds a key; no message repeats it.

    Args:
        path: of the file.
        what: names it in messages, e.g. ``"the key file 'journal.key'"``.
    Raises:
        ConfigError: it cannot be read, or others may read or change it.
    """
    try:
        status = os.stat(path)
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{what} cannot be read ({reason})") from None
    if hasattr(os, "geteuid"):
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"{what} can be read or changed by others, so it proves nothing: chmod 600 {path}"
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"{what} belongs to another user (id {status.st_uid})")
    return text
