"""The address of a SQL journal: URLs are checked, and their secrets are never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from ...errors import JournalError

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_SECRET = re.compile("password|secret|passphrase", re.IGNORECASE)
_EXPECTED = (
    "expected a URL such as sqlite:///study.db or postgresql+psycopg://user:password@host/database"
)
_FILE_SUFFIXES = (".db", ".sqlite", ".sqlite3")


@dataclass(frozen=True, repr=False)
class Address:
    """The database of a journal.

    Args:
        url: for SQLAlchemy; its password is masked wherever it is shown.
        arguments: for the driver: secrets that a shown URL would reveal.
    """

    url: sa.URL
    arguments: Mapping[str, str]

    @classmethod
    def of(cls, url: str | sa.URL) -> Address:
        """The address that a URL names.

        Raises:
            JournalError: it is not understood, or names a database other than SQLite and
                PostgreSQL. The message repeats no part of the URL that could be a secret.
        """
        shown = _harmless(url)
        try:
            parsed = sa.engine.make_url(url)
        except (ArgumentError, ValueError):  # their messages repeat parts of the URL
            raise JournalError(
                f"the journal {shown!r} is not understood; {_meant(shown) or _EXPECTED}"
            ) from None
        driver = _DRIVERS.get(parsed.drivername)
        if driver is None:
            raise JournalError(
                f"the journal {shown!r} is not understood: {parsed.drivername!r} is none of "
                f"{', '.join(_DRIVERS)}; {_driver_meant(parsed.drivername) or _EXPECTED}"
            )
        if driver == "sqlite":
            _check_sqlite(parsed, shown)
        if driver != "sqlite" and str(url).count("@") > 1:
            raise JournalError(
                f"the journal {shown!r} is not understood: its URL holds more than one '@'; write "
                "the special characters of a password as urllib.parse.quote(password, safe='') does"
            )
        hidden = {key: value for key, value in parsed.query.items() if _SECRET.search(key)}
        arguments = {
            key: value if isinstance(value, str) else value[-1] for key, value in hidden.items()
        }
        password = arguments.pop("password", None)
        parsed = parsed.set(drivername=driver).difference_update_query(list(hidden))
        if password is not None:
            parsed = parsed.set(password=password)
        return cls(parsed, arguments)

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """True for a SQLite file or memory, false for PostgreSQL."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def file(self) -> str | None:
        """The SQLite file; None for memory and for PostgreSQL."""
        database = self.url.database if self.is_sqlite else None
        if database is not None and database.startswith("file:") and "uri" in self.url.query:
            # SQLite's own form: sqlite:///file:study.db?mode=ro&uri=true
            in_memory = self.url.query.get("mode") == "memory"
            database = None if in_memory else re.sub(r"^//[^/]*(?=/)", "", database[len("file:") :])
        return None if database in (None, "", ":memory:") else database

    def options(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """The driver's arguments; those in the URL's query take precedence over the defaults."""
        return {k: v for k, v in defaults.items() if k not in self.url.query} | {**self.arguments}

    def hide(self, text: str) -> str:
        """A message of the database on one line, with any secret in it masked."""
        secrets = {str(self.url.password or ""), *self.arguments.values()} - {""}
        for secret in sorted(secrets, key=len, reverse=True):
            for written in _spellings(secret):
                text = text.replace(written, "***")
        return " ".join(text.split())


def placed(url: str, folder: Path) -> str:
    """The URL with a relative SQLite path taken from ``folder``.

    Raises:
        JournalError: the URL is not understood.
    """
    file = Address.of(url).file
    if file is None or Path(file).is_absolute() or file.startswith("~"):
        return url
    scheme, _, path = url.partition(":///")
    prefix = "file:" if path.startswith("file:") else ""
    return f"{scheme}:///{prefix}{folder / path.removeprefix(prefix)}"


def _check_sqlite(url: sa.URL, shown: str) -> None:
    """Refuse what SQLite would take for another file than the one that was meant."""
    path = url.database or ""
    if url.host is not None or url.port is not None or url.username is not None:
        meant = shown.partition("://")[2]
        why = "SQLite has no host, and a file follows three slashes"
        meant = f"sqlite:///{meant}"
    elif path.startswith("~"):
        # Where there is no such user the path comes back as it was.
        expanded = os.path.expanduser(path)
        meant = "the path in full" if expanded == path else f"sqlite:///{expanded}"
        why = "'~' is not replaced in a URL"
    elif os.name == "posix" and re.match(r"[A-Za-z]:[\\/]", path):
        why, meant = "it is a path of Windows", "sqlite:///study.db"
    else:
        return
    raise JournalError(
        f"the journal {shown!r} is not understood: {why}; write {meant} (four slashes begin an "
        "absolute path)"
    )


def _meant(text: str) -> str | None:
    """What to write instead of the path of a file; None where it is none."""
    path = re.sub(r"^(sqlite|file):/*", "", text) if ":" in text else text
    is_path = path == text or text.startswith(("sqlite:", "file:"))
    if not is_path or not path or ":" in path or "@" in path:
        return None
    if path == text and not (path.endswith(_FILE_SUFFIXES) or "/" in path):
        return None
    absolute = "/" if text.startswith(("sqlite:/", "file:/")) else ""
    return f"for a file write sqlite:///{absolute}{path}"


def _driver_meant(name: str) -> str | None:
    """What to write instead of a driver that is not used."""
    if name.startswith(("postgres+", "postgresql+")):
        return "the driver is psycopg 3: write postgresql://user:password@host/database"
    if name.startswith("sqlite+"):
        return "the driver is Python's own: write sqlite:///study.db"
    return None


def _spellings(secret: str) -> tuple[str, ...]:
    """The secret as it is, and as quoted in URLs: fully, as in a form, and as SQLAlchemy does."""
    return secret, quote(secret, safe=""), quote_plus(secret), quote(secret, safe=" +")


def _harmless(url: Any) -> str:
    """A URL that may not be valid, without any part that could be a password."""
    text = str(url)  # an sa.URL masks its own
    head, separator, rest = text.partition("://")
    if head.startswith("sqlite") or not (separator or "@" in text):
        return text
    return f"{head}://..." if separator and re.fullmatch(r"[\w+.-]*", head) and rest else "..."
