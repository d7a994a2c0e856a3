"""One writer of a file at a time, whoever keeps it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import ConfigError

_LOCK_SECONDS = 10.0


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One writer of a file at a time, so that none undoes what another adds to it.

    An advisory lock on the folder, which leaves no file behind and ends with the process. Systems
    without such locks go on without: replacing stays atomic, but of two changes one may be lost.

    Raises:
        ConfigError: no such folder, or somebody else has held the lock for ten seconds.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(
            f"{str(path)!r} cannot be written ({error.strerror}); name a file in a folder that "
            "exists and can be written to"
        ) from None
    try:
        give_up = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise ConfigError(
                        f"{str(path.parent)!r} has been locked by another process for "
                        f"{_LOCK_SECONDS:.0f} s; try again when it is done"
                    ) from None
                time.sleep(0.005)
            except OSError:  # a file system without locks
                break
            else:
                break
        yield
    finally:
        os.close(folder)
