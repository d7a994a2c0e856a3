"""Files: one writer at a time, and each file written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigError

_LOCK_SECONDS = 10.0
_UNWRITABLE = (
    "{path!r} cannot be written ({reason}); name a file in a folder that exists and is writable"
)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time change a file, so that no change is lost.

    An advisory lock on a file beside it, which this user alone can open: a lock on the folder, or
    on the file itself, could be held by everybody who can read it. It is removed at the end; one
    that a killed process has left holds up nobody. On systems without such locks there is none:
    replacing stays atomic, but one of two changes may be lost.

    Raises:
        ConfigError: no such folder, it cannot be written to, or another process has held the lock
            for ten seconds.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    lock = path.parent / f".{path.name}.lock"
    deadline = time.monotonic() + _LOCK_SECONDS
    while (descriptor := _held(lock, path, fcntl)) is None:
        if time.monotonic() > deadline:
            raise ConfigError(_locked_by(path, lock))
        time.sleep(0.005)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()  # while it is held, so that nobody holds one that is no longer there
        os.close(descriptor)


def _held(lock: Path, path: Path, fcntl: Any) -> int | None:
    """The open lock file, if this process holds it now; None where another one does."""
    try:
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(lock, flags, 0o600)
    except PermissionError as error:
        if os.path.lexists(lock):
            return None  # another user's
        raise ConfigError(_UNWRITABLE.format(path=str(path), reason=error.strerror)) from None
    except OSError as error:
        if os.path.islink(lock):
            raise ConfigError(
                f"{str(lock)!r} is a symbolic link, which somebody has put in the place of the "
                "lock; remove it"
            ) from None
        raise ConfigError(_UNWRITABLE.format(path=str(path), reason=error.strerror)) from None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
            os.close(descriptor)  # whoever owns it could hold it for ever
            return None
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without locks
            return descriptor
        if _is_still(lock, status):
            return descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)  # it was removed by the process that held it before
    return None


def _is_still(lock: Path, status: os.stat_result) -> bool:
    try:
        present = lock.lstat()
    except OSError:
        return False
    return (present.st_dev, present.st_ino) == (status.st_dev, status.st_ino)


def _locked_by(path: Path, lock: Path) -> str:
    owner = ""
    with contextlib.suppress(OSError):
        number = lock.lstat().st_uid
        if number != os.geteuid():
            owner = (
                f", of another user (id {number}); run this as that user, or remove the file if "
                "none of their processes works here"
            )
    return (
        f"{str(path)!r} has been locked by another process for {_LOCK_SECONDS:.0f} s "
        f"({lock.name}{owner}); try again when it is done"
    )


def make_private(path: Path) -> None:
    """Make an empty file that this user alone can read and write; one that is there stays as it is.

    A link is not followed. Where it cannot be made, whoever opens it next says why.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def check_own(path: Path, what: str) -> None:
    """Refuse a file with a state of its own that is a link, or that another user owns.

    Raises:
        ConfigError: it is refused.
    """
    try:
        status = path.lstat()
    except OSError:  # not there, or reading it says why
        return
    if stat.S_ISLNK(status.st_mode):
        raise ConfigError(f"{what} {str(path)!r} is a symbolic link; name the file itself")
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise ConfigError(
            f"{what} {str(path)!r} belongs to another user (id {status.st_uid}); run this as that "
            "user, or name a file of your own"
        )


def write_atomically(path: str | Path, content: str | bytes, private: bool = False) -> None:
    """Write a file to a temporary one beside it, then move that into place; text in UTF-8.

    An existing file keeps its permissions; a new one gets the process's default ones.

    Args:
        path: of the file.
        content: all of it.
        private: whether a new file can be read and written by this user alone.
    Raises:
        ConfigError: the folder does not exist or cannot be written to; nothing is left behind.
    """
    path = Path(path)
    raw = content.encode() if isinstance(content, str) else content
    mode = 0o600 if private else 0o666
    beside = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        try:
            descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
            with os.fdopen(descriptor, "wb") as file:
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:  # also KeyboardInterrupt
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(_UNWRITABLE.format(path=str(path), reason=error.strerror)) from None
