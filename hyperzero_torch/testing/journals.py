"""The laws of a ``Journal``, for storages of your own; see the docstring of ``testing``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

from ..errors import HyperZeroError, StudyNotFoundError
from ..study.journal import (
    CandidateAdded,
    Compacted,
    Decision,
    Entry,
    Journal,
    ReadingsReceived,
    StudyHeader,
)
from ..study.journal.base import ConflictError, without
from .entries import FIRST, HEADER, SPEC, assert_same, evidence, example_entries, received
from .round_trip import RoundTripLaws
from .values import assert_raises


class JournalContract(RoundTripLaws):
    """The laws of ``Journal``: override ``make_journal``, and ``reopen`` if entries persist."""

    def reopen(self, journal: Journal) -> Journal | None:
        """A second journal on the same storage, as another process would open it.

        ``journal`` stays open beside it. None if entries do not outlive the object.
        """
        return None

    def test_it_is_a_journal_without_studies(self, tmp_path: Path) -> None:
        """A new journal has all the methods and no study."""
        journal = self._open(tmp_path)
        assert isinstance(journal, Journal), f"{type(journal).__name__} lacks methods of Journal"
        assert journal.studies() == []

    def test_append_after_a_wrong_number_writes_nothing(self, tmp_path: Path) -> None:
        """A writer that has not read everything, or claims more than there is, is refused."""
        entries = example_entries()
        journal = self._stored(tmp_path, entries[:3])
        for after in (0, 1, 2, 4, 100):
            append = functools.partial(journal.append, "study", entries[3:], after=after)
            assert_raises(ConflictError, append)
            assert_same(journal.read("study"), entries[:3])
        assert journal.append("study", entries[3:], after=3) == len(entries)
        assert_raises(ConflictError, lambda: journal.append("study", [FIRST], after=3))
        assert_same(journal.read("study"), entries)

    def test_create_twice_is_a_conflict(self, tmp_path: Path) -> None:
        """The first study of a name stays unchanged."""
        entries = example_entries()
        journal = self._stored(tmp_path, entries)
        other = StudyHeader("study", 99, {"other": True})
        assert_raises(ConflictError, lambda: journal.create(other, [FIRST]))
        assert journal.header("study") == HEADER
        assert_same(journal.read("study"), entries)

    def test_an_append_is_all_or_nothing(self, tmp_path: Path) -> None:
        """Entries that the journal cannot store leave no trace of those before them.

        A journal may accept such entries; then it must store all of them.
        """
        entries = example_entries()
        candidate = entries[1]
        assert isinstance(candidate, CandidateAdded)
        bad: list[Entry] = [
            candidate,  # the same candidate again
            Decision(0, "kind", "reason", {"not JSON": object()}),
            Decision(2**70, "kind", "reason"),
        ]
        for i, entry in enumerate(bad):
            journal = self._stored(tmp_path / str(i), entries)
            new = [Decision(1, "before", ""), entry, Decision(1, "after", "")]
            stored = entries
            try:
                journal.append("study", new, after=len(entries))
                stored = [*entries, *new]
            except HyperZeroError:
                pass
            assert_same(journal.read("study"), stored)
            journal.append("study", [FIRST], after=len(stored))
            assert_same(journal.read("study"), [*stored, FIRST])

    def test_a_create_is_all_or_nothing(self, tmp_path: Path) -> None:
        """A study whose first entries cannot be stored does not exist."""
        journal = self._open(tmp_path)
        candidate = example_entries()[1]
        new: list[Entry] = [FIRST, candidate, candidate]
        try:
            journal.create(HEADER, new)
        except HyperZeroError:
            assert journal.studies() == []
            new = new[:2]
            journal.create(HEADER, new)
        assert_same(journal.read("study"), new)

    def test_studies_do_not_see_each_other(self, tmp_path: Path) -> None:
        """The same candidates, rounds and readings may be in several studies."""
        journal = self._open(tmp_path)
        entries = example_entries()
        for name in ("one", "two", "One"):
            journal.create(StudyHeader(name, 0, SPEC), [FIRST])
        journal.append("one", entries, after=1)
        assert_same(journal.read("two"), [FIRST])
        journal.append("two", entries[1:], after=1)
        assert_same(journal.read("one"), [FIRST, *entries])
        assert_same(journal.read("two"), [FIRST, *entries[1:]])
        assert_same(journal.read("One"), [FIRST])

    def test_an_unknown_study_is_an_error_that_lists_the_studies(self, tmp_path: Path) -> None:
        """``header``, ``read`` and ``append`` of a study that does not exist."""
        journal = self._open(tmp_path)
        calls: list[Callable[[], object]] = [
            lambda: journal.header("none"),
            lambda: journal.read("none"),
            lambda: journal.append("none", [FIRST], after=0),
        ]
        for call in calls:
            assert "none" in str(assert_raises(StudyNotFoundError, call))
        names = ["feed", "shorts"]
        for name in names:
            journal.create(StudyHeader(name, 0, SPEC), [FIRST])
        for call in calls:
            message = str(assert_raises(StudyNotFoundError, call))
            assert all(name in message for name in names), f"{names} are not all in: {message}"
        assert journal.studies() == names

    def test_lists_are_not_shared_with_the_caller(self, tmp_path: Path) -> None:
        """A caller that changes a list that it gave or got does not change the journal."""
        entries = example_entries()
        first, second = entries[:2], entries[2:]
        journal = self._stored(tmp_path, first)
        journal.append("study", second, after=2)
        first.clear()
        second.clear()
        journal.read("study").clear()
        journal.read("study", after=1).clear()
        journal.studies().clear()
        assert_same(journal.read("study"), entries)
        assert journal.studies() == ["study"]

    def test_reopening_gives_the_same(self, tmp_path: Path) -> None:
        """Another process sees every study, header and entry, and can append to them."""
        entries = example_entries()
        journal = self._stored(tmp_path, entries)
        journal.create(StudyHeader("other", 3, {}), [FIRST])
        second = self._reopen(journal)
        assert second.studies() == ["other", "study"]
        assert second.header("study") == HEADER
        assert_same(second.read("study"), entries)
        assert second.append("study", [FIRST], after=len(entries)) == len(entries) + 1
        assert_same(journal.read("study"), [*entries, FIRST])
        journal.close()
        assert_same(self._reopen(second).read("study"), [*entries, FIRST])

    def test_of_two_writers_the_one_that_has_not_read_is_refused(self, tmp_path: Path) -> None:
        """It writes nothing until it has read what the other one wrote."""
        journal = self._stored(tmp_path, [FIRST])
        second = self._reopen(journal)
        mine, theirs = Decision(0, "mine", ""), Decision(0, "theirs", "")
        second.append("study", [theirs], after=1)
        assert_raises(ConflictError, lambda: journal.append("study", [mine], after=1))
        assert_raises(ConflictError, lambda: second.create(HEADER, [FIRST]))
        assert_same(journal.read("study", after=1), [theirs])
        assert journal.append("study", [mine], after=2) == 3
        assert_same(second.read("study"), [FIRST, theirs, mine])

    def test_readings_of_compacted_rounds_may_go_and_nothing_else(self, tmp_path: Path) -> None:
        """All or none of them, whichever message brought them; numbers and order stay."""
        two = ReadingsReceived((0, 7), (1, 0), (1, 1), (2, 0), (0.1, 12.5), (0.0, -1.0), (0.0, 2.0))
        before: list[Entry] = [FIRST, received((0, 1), mean=(0.1, 0.3)), two, FIRST]
        journal = self._stored(tmp_path, before)
        journal.create(StudyHeader("other", 1, SPEC), before)
        compacted = Compacted((0,), (2, 3), 3, evidence(0.1))
        assert journal.append("study", [compacted], after=4) == 5
        left = [without(e, {0}) if isinstance(e, ReadingsReceived) else e for e in before]
        got = journal.read("study")
        if got[1] == before[1]:
            left = before  # a journal that keeps everything
        assert_same(got, [*left, compacted])
        assert_same(journal.read("study", after=2), [*left[2:], compacted])
        assert_same(journal.read("other"), before)
        again = Compacted((7,), (3,), 1, compacted.evidence)
        assert journal.append("study", [again, FIRST], after=5) == 7
        left = [without(e, {7}) if isinstance(e, ReadingsReceived) else e for e in left]
        got = journal.read("study")
        assert_same(got, [*(left if got[2] == left[2] else before), compacted, again, FIRST])
        second = self.reopen(journal)
        if second is not None:
            assert_same(second.read("study"), got)

    def _reopen(self, journal: Journal) -> Journal:
        second = self.reopen(journal)
        if second is None:
            raise SkipTest("entries of this journal do not outlive it")
        return second
