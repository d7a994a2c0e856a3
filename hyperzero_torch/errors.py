"""Every error that this package raises, in one tree.

    HyperZeroError
    ├── InputError (ValueError)      unusable input; nothing was changed
    │   ├── ShapeError               tensors whose shapes, dtypes or devices do not fit together
    │   ├── SizeError                needs more memory than is free; nothing was started
    │   ├── SpaceError               parameters, bounds, a theta outside its space
    │   ├── ProblemError             metrics, objective, constraints, base
    │   │   └── ExpressionError      a string that is not understood, with the place in it
    │   ├── ConfigError              a configuration file or TunerConfig
    │   ├── ReadingsError            refused readings; names the rows at fault
    │   ├── FitError                 no Gaussian process can be fitted to this evidence
    │   ├── PackageError             a transfer package or privacy ledger that is refused
    │   ├── BudgetError              a release that exceeds the privacy budget
    │   ├── LaunchError              a launch or a promotion that cannot be made
    │   └── RoundError               a round that cannot be planned
    ├── JournalError                 the log cannot be read or written
    │   ├── StudyNotFoundError       no such study in this journal
    │   ├── StudyMismatchError       the study has another problem, seed, surrogate or goals
    │   ├── ForeignJournalError      the file or database is not a journal of this package
    │   └── JournalCorruptError      a journal whose entries contradict each other
    ├── FencedError                  flags that serve another study, journal or a later round
    ├── GivenUpError                 a platform, warehouse or journal kept failing
    ├── DeviceMemoryError (MemoryError)   out of memory, even in small tiles
    └── MissingExtraError (ImportError)   an optional dependency is not installed

``TunerWarning`` (a UserWarning) is no error: a plan was made in another way than usual.

Every message says what was given, what was expected and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence


class HyperZeroError(Exception):
    """Root of the tree: ``except HyperZeroError`` catches every error of this package."""


class TunerWarning(UserWarning):
    """A plan was made, but not in the usual way; the journal's decisions say the same."""


class InputError(HyperZeroError, ValueError):
    """Input that cannot be used; nothing was changed."""


class ShapeError(InputError):
    """Tensors whose shapes, dtypes or devices do not fit together."""


class SizeError(InputError):
    """Work that needs more memory than is free; it was not started."""


class SpaceError(InputError):
    """An invalid search space, or a theta outside it."""


class ProblemError(InputError):
    """Invalid metrics, objective, constraints or base."""


class ExpressionError(ProblemError):
    """An objective or constraint string that cannot be parsed.

    Args:
        reason: what is wrong at ``position`` and what was expected there.
        source: the whole string.
        position: 0-based index into ``source`` where parsing stopped.
    """

    def __init__(self, reason: str, source: str, position: int) -> None:
        self.reason = reason
        self.source = source
        self.position = position
        super().__init__(f"{reason}\n    {source}\n    {' ' * position}^")


class ConfigError(InputError):
    """A configuration that cannot be used.

    Args:
        message: the whole message.
        faults: in a file or a mapping, each place (keys and positions) with what is wrong there.
    """

    def __init__(
        self, message: str, faults: Sequence[tuple[tuple[str | int, ...], str]] = ()
    ) -> None:
        self.faults = tuple(faults)
        super().__init__(message)


class ReadingsError(InputError):
    """Readings that were refused; none of them was recorded.

    Args:
        summary: one sentence on what is wrong.
        rows: one line for each row at fault, the first few of ``num_rows``.
        num_rows: number of rows at fault.
    """

    def __init__(self, summary: str, rows: Sequence[str] = (), num_rows: int | None = None) -> None:
        self.rows = tuple(rows)
        self.num_rows = len(self.rows) if num_rows is None else num_rows
        lines = [summary, *(f"  - {row}" for row in self.rows)]
        if self.num_rows > len(self.rows):
            lines.append(f"  ... and {self.num_rows - len(self.rows)} more")
        super().__init__("\n".join(lines))


class RoundError(InputError):
    """A round that cannot be planned."""


class LaunchError(InputError):
    """A launch or a promotion that cannot be made; nothing was changed."""


class JournalError(HyperZeroError):
    """The journal cannot be read or written."""


class StudyNotFoundError(JournalError):
    """The journal holds no study of this name."""


class StudyMismatchError(JournalError):
    """The study in the journal was made for another problem, seed or surrogate, or other goals."""


class ForeignJournalError(JournalError):
    """The file or database is not a journal of this package, or of an unknown version."""


class JournalCorruptError(JournalError):
    """Entries of the journal contradict each other."""


class FitError(InputError):
    """The Gaussian process cannot be fitted to this evidence."""


class PackageError(InputError):
    """A transfer package or privacy ledger that is refused.

    It has expired, was changed after it was made, is meant for another use, or has another schema.
    """


class BudgetError(InputError):
    """A release that exceeds the privacy budget or was made before; nothing was released."""


class FencedError(HyperZeroError):
    """What is served belongs to another study or journal, or to a later round; it was not changed.

    Another process serves the same flags, or a journal was lost or restored from a backup.
    """


class GivenUpError(HyperZeroError):
    """A platform, a warehouse or the journal failed too often, or answered too late."""


class DeviceMemoryError(HyperZeroError, MemoryError):
    """A device ran out of memory, even in tiles of an eighth of the usual size."""


class MissingExtraError(HyperZeroError, ImportError):
    """An optional dependency is needed and not installed.

    Args:
        what: what was asked for, e.g. ``"the HTML report"``.
        package: the distribution that is missing, e.g. ``"plotly"``.
        extra: the extra of this package that installs it.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs {package}, which is not installed; "
            f"install it with: pip install 'hyperzero-torch[{extra}]'"
        )
