"""Whether the SQLite file that connections have open is still the one at its path.

An open connection follows its file, not its path. After the file was replaced or moved away, it
would go on in a file that nobody opens again, and what it commits there would be lost. The same
holds for the write-ahead log beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import JournalError

#: Device and number of a file and of its log; None for one that is not there.
_Identity = tuple[int, int] | None


@dataclass(frozen=True)
class _Seen:
    file: _Identity
    log: _Identity


class OpenFile:
    """The file of a journal, as its connections have it open.

    Args:
        path: of the file.
        where: the journal, for messages.
    """

    def __init__(self, path: Path, where: str) -> None:
        self._path, self._where = path.absolute(), where
        self._log = self._path.with_name(f"{self._path.name}-wal")
        self._seen: _Seen | None = None

    def is_another(self) -> bool:
        """Whether connections have to be opened anew: another file is at the path by now.

        Raises:
            JournalError: there is none; a new connection would make an empty one.
        """
        if self._seen is None:
            return False
        now = self._now()
        if now.file is None:
            raise JournalError(
                f"the file of the journal {self._where} was moved or removed while it was in use; "
                "nothing was written. Put it back and call again"
            )
        if now.file == self._seen.file and self._seen.log in (None, now.log):
            return False
        self._seen = None
        return True

    def note(self) -> None:
        """Take the file at the path as the one that is open, unless it is known."""
        now = self._now()
        if self._seen is None:
            self._seen = now
        elif self._seen.file == now.file and self._seen.log is None:
            self._seen = _Seen(now.file, now.log)

    def check(self, is_written: bool) -> None:
        """Refuse to go on where the file was replaced since the transaction began.

        Args:
            is_written: whether the transaction has committed by now.
        Raises:
            JournalError: it was.
        """
        if self._seen is None or self._now().file == self._seen.file:
            return
        what = "what was just written is lost" if is_written else "nothing was written"
        raise JournalError(
            f"the file of the journal {self._where} was replaced, moved or removed while it was in "
            f"use; {what}. Call again: the file that is at its path by then is used"
        )

    def _now(self) -> _Seen:
        return _Seen(_identity(self._path), _identity(self._log))


def _identity(path: Path) -> _Identity:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
