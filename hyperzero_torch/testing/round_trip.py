"""Laws of a ``Journal``: what is read is what was written, whatever the values."""

from __future__ import annotations

import random
from pathlib import Path

from ..study.journal import (
    CandidateAdded,
    Configured,
    Decision,
    Entry,
    Journal,
    Planned,
    ReadingsReceived,
    StudyHeader,
)
from .entries import (
    FIRST,
    HEADER,
    KINDS,
    SPEC,
    assert_same,
    example_entries,
    random_entries,
    received,
)
from .values import HARD_FLOATS, HARD_NAMES


class RoundTripLaws:
    """The part of ``JournalContract`` about values; override ``make_journal``."""

    def make_journal(self, tmp_path: Path) -> Journal:
        """A new journal without studies; ``tmp_path`` is an empty folder for its files."""
        raise NotImplementedError

    def test_headers_come_back_equal(self, tmp_path: Path) -> None:
        """``header`` returns what ``create`` was given, ``studies`` the sorted names."""
        journal = self._open(tmp_path)
        headers = [StudyHeader(n, s, SPEC) for n, s in (("b", 0), ("a", 2**63 - 1), ("B", 7))]
        for header in headers:
            journal.create(header, [FIRST])
        assert journal.studies() == ["B", "a", "b"]
        for header in headers:
            assert journal.header(header.study) == header

    def test_every_kind_of_entry_comes_back_equal_and_in_order(self, tmp_path: Path) -> None:
        """``create`` and ``append`` in pieces of any size keep the order and every value."""
        entries = example_entries()
        assert {type(entry) for entry in entries} == set(KINDS)
        for size in (1, 2, len(entries)):
            journal = self._stored(tmp_path / str(size), entries[:1])
            for start in range(1, len(entries), size):
                last = journal.append("study", entries[start : start + size], after=start)
                assert last == min(start + size, len(entries)), "append returns the last number"
            assert_same(journal.read("study"), entries)

    def test_entries_may_come_with_create(self, tmp_path: Path) -> None:
        """``create`` takes any number of first entries, and ``append`` counts on from them."""
        entries = example_entries()
        journal = self._stored(tmp_path, entries)
        assert journal.append("study", [FIRST], after=len(entries)) == len(entries) + 1
        assert_same(journal.read("study"), [*entries, FIRST])

    def test_numbers_come_back_bit_for_bit(self, tmp_path: Path) -> None:
        """The sign of zero, subnormals and the last bit are kept, in columns and in details."""
        ids = tuple(range(len(HARD_FLOATS)))
        details = {"floats": list(HARD_FLOATS), "nested": {"deep": [[-0.0], [0.1 + 0.2]]}}
        names = {f"p{i}": v for i, v in enumerate(HARD_FLOATS)}
        entries: list[Entry] = [
            Configured(details),
            CandidateAdded(0, 0, "base", HARD_FLOATS, names),
            Planned(0, ids, ids, HARD_FLOATS, None, details),
            received(ids, mean=HARD_FLOATS),
            Decision(0, "kind", "reason", details),
        ]
        self._stored(tmp_path, entries)

    def test_large_whole_numbers_come_back_exactly(self, tmp_path: Path) -> None:
        """Rounds, revisions and slots may be Unix times in microseconds."""
        large = 2**53 - 1
        readings = ReadingsReceived((large,), (0,), (0,), (large,), (1.0,), (1.0,), (1.0,))
        planned = Planned(large, (0, 1), (0, large), (0.5, 0.5))
        self._stored(tmp_path, [FIRST, planned, readings, Decision(large, "a", "b")])

    def test_text_of_every_kind_comes_back(self, tmp_path: Path) -> None:
        """Names of studies, parameters, triggers and reasons are any text."""
        journal = self._open(tmp_path)
        entries: dict[str, list[Entry]] = {
            name: [
                Configured({name: name}),
                CandidateAdded(0, 0, name, (0.5,), {name: name}),
                Planned(i, (0,), (0,), (1.0,), name, {name: [name]}),
                Decision(i, name, name, {name: None}),
            ]
            for i, name in enumerate(HARD_NAMES)
        }
        for i, name in enumerate(HARD_NAMES):
            journal.create(StudyHeader(name, i, {name: name}), entries[name])
        assert journal.studies() == sorted(HARD_NAMES)
        for i, name in enumerate(HARD_NAMES):
            assert journal.header(name) == StudyHeader(name, i, {name: name})
            assert_same(journal.read(name), entries[name])

    def test_empty_values_and_none_stay_distinct(self, tmp_path: Path) -> None:
        """Empty mappings, empty texts, empty tuples and None come back unchanged."""
        entries: list[Entry] = [
            Configured({}),
            CandidateAdded(0, 0, "", (), {}),
            Planned(0, (0,), (0,), (1.0,), None, {}),
            Planned(1, (0,), (0,), (1.0,), "", {"none": None, "empty": [], "false": False}),
            Decision(0, "", "", {}),
        ]
        self._stored(tmp_path, entries)

    def test_long_entries_come_back(self, tmp_path: Path) -> None:
        """Thousands of arms, rows and numbers in one entry."""
        num = 5000
        values = tuple(1 / (1 + i) for i in range(num))
        entries: list[Entry] = [
            Configured({"long": list(values)}),
            Planned(0, tuple(range(num)), (1,) * num, values, None, {"long": list(range(num))}),
            received(range(num), mean=values),
            CandidateAdded(0, 0, "base", values, {}),
        ]
        self._stored(tmp_path, entries)

    def test_random_entries_come_back(self, tmp_path: Path) -> None:
        """A few hundred random entries, appended in random pieces."""
        generator = random.Random(0)
        entries = [FIRST, *random_entries(generator, 200)]
        journal = self._stored(tmp_path, entries[:1])
        done = 1
        while done < len(entries):
            size = generator.randint(1, 20)
            done = journal.append("study", entries[done : done + size], after=done)
        assert_same(journal.read("study"), entries)

    def test_read_after_is_the_tail(self, tmp_path: Path) -> None:
        """``read(after=k)`` is ``read()[k:]``, also at the end."""
        entries = example_entries()
        journal = self._stored(tmp_path, entries)
        for after in range(len(entries) + 1):
            assert_same(journal.read("study", after=after), entries[after:])

    def _open(self, folder: Path) -> Journal:
        folder.mkdir(parents=True, exist_ok=True)
        return self.make_journal(folder)

    def _stored(self, folder: Path, entries: list[Entry]) -> Journal:
        """A new journal with one study, "study", from which these entries come back."""
        journal = self._open(folder)
        journal.create(HEADER, entries)
        assert_same(journal.read("study"), entries)
        return journal
