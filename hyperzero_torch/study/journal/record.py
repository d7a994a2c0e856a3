"""What all typed records of a journal share: how they are stored and read, and their versions.

``_upcast`` converts records of earlier versions; version 1 stored no version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, StrictInt, ValidationError

#: Latest version of the records. Most are written as version 2, which earlier packages read;
#: versions 3 to 8 have kinds or values that an earlier package would not understand.
VERSION = 8
#: Under this key a record stores its version; a remark must not use it.
VERSION_KEY = "trace_version"

Candidates: TypeAlias = tuple[StrictInt, ...]
ByMetric: TypeAlias = tuple[float, ...]


class TraceError(ValueError):
    """Stored details are not a record that this package can read."""


class NewerTraceError(TraceError):
    """A later version of the package wrote the record."""


class Record(BaseModel):
    """Values that a journal stores; ``read`` is the inverse of ``stored``."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    #: Under which it is written.
    version: ClassVar[int] = 2

    @classmethod
    def read(cls, details: Mapping[str, Any]) -> Any:
        """The record with these stored values, of this or an earlier version.

        Raises:
            TraceError: the values are not a record, or one of a later version.
        """
        values = _upcast(details)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise TraceError(f"{where or cls.__name__}: {first['msg']}") from None

    def stored(self) -> dict[str, Any]:
        """Plain JSON values under the stored names; fields at their defaults are omitted."""
        return self.plain() | {VERSION_KEY: self.version}

    def plain(self) -> dict[str, Any]:
        """The same values without the version."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class DecisionTrace(Record):
    """The facts of a decision; ``kind`` is its name in the journal."""

    kind: ClassVar[str]


def _upcast(details: Mapping[str, Any]) -> dict[str, Any]:
    """Stored values of this or an earlier version, as values of this version.

    Version 1 stored the same names, without a version.
    """
    values = dict(details)
    version = values.pop(VERSION_KEY, 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise TraceError(f"its version is {version!r:.20}, expected a whole number")
    if version > VERSION:
        raise newer(version)
    return values


def newer(version: int) -> NewerTraceError:
    """The error for a record of a later version."""
    return NewerTraceError(
        f"its trace is of version {version}, this package reads versions 1 to {VERSION}; "
        "use the version of hyperzero-torch that wrote it"
    )
