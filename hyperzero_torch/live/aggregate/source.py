"""Sources of a loop's readings, and the result of collecting them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ...errors import ReadingsError
from ...study.readings import Readings


@dataclass(frozen=True)
class Collected:
    """Readings, and what was kept out of them.

    Args:
        readings: one message for all rounds; None where there are no readings.
        excluded_rounds: rounds that must not count, such as those whose counts do not fit the
            planned shares; each with the reason.
        excluded_users: per round, how many users were not counted, by reason.
        omitted: per round, arms and metrics without a reading, and why.
        final_rounds: rounds that are reported for the last time; what is omitted of the others may
            still arrive. None where the source does not know.
        faults: rows and users that were left out of all rounds together, and files that could not
            be read, each with its number.
        counted: per excluded round, its users by candidate, where the reason is its split.
    Raises:
        ReadingsError: a field of another type; the message names it.
    """

    readings: Readings | None = None
    excluded_rounds: Mapping[int, str] = field(default_factory=dict)
    excluded_users: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    omitted: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    final_rounds: Collection[int] | None = None
    faults: Mapping[str, int] = field(default_factory=dict)
    counted: Mapping[int, Mapping[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.readings is None or isinstance(self.readings, Readings)):
            raise ReadingsError(
                f"a source's readings are one hz.Readings or None, got "
                f"{type(self.readings).__name__}; make one with hz.Readings.from_frame(frame), or "
                "of several with hz.Readings.concat"
            )
        rounds, users = self.excluded_rounds, self.excluded_users
        if not _maps_rounds(rounds, str) or not all(r.strip() for r in rounds.values()):
            raise ReadingsError(f"excluded_rounds must map rounds to reasons, got {rounds!r:.200}")
        if not _maps_rounds(self.counted, Mapping) or not _maps_rounds(self.omitted, tuple | list):
            raise ReadingsError(
                "omitted must map rounds to lists of reasons, and counted rounds to users by "
                f"candidate, got {self.omitted!r:.100} and {self.counted!r:.100}"
            )
        if not _maps_rounds(users, Mapping):
            raise ReadingsError(
                f"excluded_users must map rounds to counts by reason, got {users!r:.200}"
            )


class Source(Protocol):
    """Where readings come from."""

    def collect(
        self,
        as_of: int,
        planned: Mapping[int, Mapping[int, float]],
        missing: Collection[int] = (),
    ) -> Collected:
        """All readings of earlier rounds that are available when round ``as_of`` begins.

        Readings may be returned repeatedly. An answer that comes after its round is recorded in a
        later one. A call that hangs is left running, and a later call may run beside it.

        Args:
            as_of: the round that begins.
            planned: shares by candidate of the rounds of the last week, to check the split.
            missing: those of these rounds of which no reading has arrived yet.
        """
        ...


@runtime_checkable
class KnowsEpochs(Protocol):
    """A source that can tell exposures of another study or journal apart."""

    def expect(self, served: Mapping[int, tuple[str, frozenset[str]]]) -> None:
        """Called before ``collect``: by round, the study and the epochs that served it."""
        ...


def check_collected(answer: object) -> Collected:
    """The answer of a source.

    Raises:
        ReadingsError: it is not a ``Collected``.
    """
    if not isinstance(answer, Collected):
        raise ReadingsError(
            f"a source must return Collected(readings), or Collected() where it has none, got "
            f"{type(answer).__name__}"
        )
    return answer


def _maps_rounds(value: object, kind: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, int) and isinstance(item, kind) for key, item in value.items()
    )
