"""Where a loop's readings come from, and what a source may answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ...errors import ReadingsError
from ...study.readings import Readings


@dataclass(frozen=True)
class Collected:
    """What a source has: ``readings``, None for nothing; rounds that are ``suspect``, and why;
    users left out of rounds, by reason, for the log.

    Raises:
        ReadingsError: a field that is something else; says which.
    """

    readings: Readings | None = None
    suspect: Mapping[int, str] = field(default_factory=dict)
    excluded: Mapping[int, Mapping[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.readings is None or isinstance(self.readings, Readings)):
            raise ReadingsError(
                f"a source's readings are one hz.Readings or None, got "
                f"{type(self.readings).__name__}; make one with hz.Readings.from_frame(frame), or "
                "of several with hz.Readings.concat"
            )
        if not _maps(self.suspect, str) or not all(r.strip() for r in self.suspect.values()):
            raise ReadingsError(
                f"a source's suspect rounds map rounds to reasons, got {self.suspect!r:.200}"
            )
        if not _maps(self.excluded, Mapping):
            raise ReadingsError(
                "a source's excluded users map rounds to counts by reason, got "
                f"{self.excluded!r:.200}"
            )


class Source(Protocol):
    """Where readings come from."""

    def collect(
        self,
        as_of: int,
        planned: Mapping[int, Mapping[int, float]],
        missing: Collection[int] = (),
    ) -> Collected:
        """Everything known when round ``as_of`` begins, of any earlier rounds.

        What was handed over before may be handed over again, and an answer that came too late for
        its round is taken in a later one. ``planned`` has the shares by candidate of the rounds of
        the last week, for checking the split. Of those that are ``missing`` nothing has arrived
        yet: the warehouse or the loop may have been away.

        A call that hangs is left behind after some hours, and another is made beside it.
        """
        ...


def checked(found: object) -> Collected:
    """What a source answered.

    Raises:
        ReadingsError: it is no ``Collected``.
    """
    if not isinstance(found, Collected):
        raise ReadingsError(
            f"a source answers with Collected(readings), got {type(found).__name__}; nothing is "
            "Collected()"
        )
    return found


def _maps(value: object, kind: type) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, int) and isinstance(one, kind) for key, one in value.items()
    )
