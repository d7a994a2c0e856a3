"""The laws of a ``Journal``, for storages of your own; see the room's docstring."""

from __future__ import annotations

import functools
import math
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from unittest import SkipTest

import numpy as np

from ..errors import HyperZeroError, StudyNotFoundError
from ..study.journal import (
    EVIDENCE,
    CandidateAdded,
    Compacted,
    Configured,
    Decision,
    Entry,
    Journal,
    Planned,
    ReadingsReceived,
    StudyHeader,
)
from ..study.journal.arrays import pack_array
from ..study.journal.base import ConflictError, without

#: Numbers on which text, four-byte floats and clever storage stumble.
HARD_FLOATS = (
    0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1e308, -1.7976931348623157e308,
    0.1 + 0.2, 1 / 3, 2.0**53, 2.0**53 + 2, -1e-300, 1.0, 16777217.0, 123456.789e-9,
)  # fmt: skip
HARD_NAMES = (
    "Größe", "点击率", "🙂 d'accord", "O'Brien; DROP TABLE studies; --", 'a"b`c', "%s {x} :y ?",
    "a\nb\tc", " ", "null", "true", "1", "e\u0301", "\u00e9", "\u2028", "x" * 3000,
)  # fmt: skip

_SPEC: Mapping[str, Any] = {"objective": "views", "metrics": ["views"], "x": 0.1, "none": None}
_FIRST = Configured({"num_draws": 1000, "control_share": "auto"})


class JournalContract:
    """The laws of ``Journal``: override ``make_journal``, and ``reopen`` where entries persist."""

    def make_journal(self, tmp_path: Path) -> Journal:
        """A new journal without studies; ``tmp_path`` is an empty folder for its files."""
        raise NotImplementedError

    def reopen(self, journal: Journal) -> Journal | None:
        """A second journal on the same storage, as another process would open it.

        ``journal`` stays open beside it. None where entries do not outlive the object.
        """
        return None

    def test_it_is_a_journal_without_studies(self, tmp_path: Path) -> None:
        """A new journal has all the methods and no study."""
        journal = self._open(tmp_path)
        assert isinstance(journal, Journal), f"{type(journal).__name__} lacks methods of Journal"
        assert journal.studies() == []

    def test_headers_come_back_equal(self, tmp_path: Path) -> None:
        """``header`` gives what ``create`` was given, ``studies`` the sorted names."""
        journal = self._open(tmp_path)
        headers = [StudyHeader(n, s, _SPEC) for n, s in (("b", 0), ("a", 2**63 - 1), ("B", 7))]
        for header in headers:
            journal.create(header, [_FIRST])
        assert journal.studies() == ["B", "a", "b"]
        for header in headers:
            assert journal.header(header.study) == header

    def test_every_kind_of_entry_comes_back_equal_and_in_order(self, tmp_path: Path) -> None:
        """``create`` and ``append`` in pieces of any size keep the order and every value."""
        entries = example_entries()
        assert {type(entry) for entry in entries} == set(_KINDS)
        for size in (1, 2, len(entries)):
            journal = self._open(tmp_path / str(size))
            journal.create(_header(), entries[:1])
            for start in range(1, len(entries), size):
                last = journal.append("study", entries[start : start + size], after=start)
                assert last == min(start + size, len(entries)), "append returns the last number"
            _assert_same(journal.read("study"), entries)

    def test_entries_may_come_with_create(self, tmp_path: Path) -> None:
        """``create`` takes any number of first entries, and ``append`` counts on from them."""
        journal = self._open(tmp_path)
        entries = example_entries()
        journal.create(_header(), entries)
        assert journal.append("study", [_FIRST], after=len(entries)) == len(entries) + 1
        _assert_same(journal.read("study"), [*entries, _FIRST])

    def test_numbers_come_back_bit_for_bit(self, tmp_path: Path) -> None:
        """The sign of zero, subnormals and the last bit survive, in columns and in details."""
        journal = self._open(tmp_path)
        num = len(HARD_FLOATS)
        details = {"floats": list(HARD_FLOATS), "nested": {"deep": [[-0.0], [0.1 + 0.2]]}}
        entries: list[Entry] = [
            Configured(details),
            CandidateAdded(
                0, 0, "base", HARD_FLOATS, {f"p{i}": v for i, v in enumerate(HARD_FLOATS)}
            ),
            Planned(0, tuple(range(num)), tuple(range(num)), HARD_FLOATS, None, details),
            _received(range(num), mean=HARD_FLOATS),
            Decision(0, "kind", "reason", details),
        ]
        journal.create(_header(), entries)
        _assert_same(journal.read("study"), entries)

    def test_large_whole_numbers_come_back_exactly(self, tmp_path: Path) -> None:
        """Rounds, revisions and slots may be Unix times in microseconds."""
        journal = self._open(tmp_path)
        large = 2**53 - 1
        received = ReadingsReceived((large,), (0,), (0,), (large,), (1.0,), (1.0,), (1.0,))
        planned = Planned(large, (0, 1), (0, large), (0.5, 0.5))
        entries: list[Entry] = [_FIRST, planned, received, Decision(large, "a", "b")]
        journal.create(_header(), entries)
        _assert_same(journal.read("study"), entries)

    def test_text_of_every_kind_comes_back(self, tmp_path: Path) -> None:
        """Names of studies, parameters, triggers and reasons are any text."""
        journal = self._open(tmp_path)
        for i, name in enumerate(HARD_NAMES):
            entries: list[Entry] = [
                Configured({name: name}),
                CandidateAdded(0, 0, name, (0.5,), {name: name}),
                Planned(i, (0,), (0,), (1.0,), name, {name: [name]}),
                Decision(i, name, name, {name: None}),
            ]
            journal.create(StudyHeader(name, i, {name: name}), entries)
        assert journal.studies() == sorted(HARD_NAMES)
        for i, name in enumerate(HARD_NAMES):
            assert journal.header(name) == StudyHeader(name, i, {name: name})
            first, born, planned, decided = journal.read(name)
            assert first == Configured({name: name})
            assert born == CandidateAdded(0, 0, name, (0.5,), {name: name})
            assert planned == Planned(i, (0,), (0,), (1.0,), name, {name: [name]})
            assert decided == Decision(i, name, name, {name: None})

    def test_nothing_and_none_are_told_apart(self, tmp_path: Path) -> None:
        """Empty mappings, empty texts, empty tuples and None come back as what they were."""
        journal = self._open(tmp_path)
        entries: list[Entry] = [
            Configured({}),
            CandidateAdded(0, 0, "", (), {}),
            Planned(0, (0,), (0,), (1.0,), None, {}),
            Planned(1, (0,), (0,), (1.0,), "", {"none": None, "empty": [], "false": False}),
            Decision(0, "", "", {}),
        ]
        journal.create(_header(), entries)
        _assert_same(journal.read("study"), entries)

    def test_long_entries_come_back(self, tmp_path: Path) -> None:
        """Thousands of arms, rows and numbers in one entry."""
        journal = self._open(tmp_path)
        num = 5000
        values = tuple(1 / (1 + i) for i in range(num))
        entries: list[Entry] = [
            Configured({"long": list(values)}),
            Planned(0, tuple(range(num)), (1,) * num, values, None, {"long": list(range(num))}),
            _received(range(num), mean=values),
            CandidateAdded(0, 0, "base", values, {}),
        ]
        journal.create(_header(), entries)
        _assert_same(journal.read("study"), entries)

    def test_random_entries_come_back(self, tmp_path: Path) -> None:
        """A few hundred random entries, appended in random pieces."""
        journal = self._open(tmp_path)
        generator = random.Random(0)
        entries = [_FIRST, *random_entries(generator, 200)]
        journal.create(_header(), entries[:1])
        done = 1
        while done < len(entries):
            size = generator.randint(1, 20)
            done = journal.append("study", entries[done : done + size], after=done)
        _assert_same(journal.read("study"), entries)

    def test_read_after_is_the_tail(self, tmp_path: Path) -> None:
        """``read(after=k)`` is ``read()[k:]``, also at the end."""
        journal = self._open(tmp_path)
        entries = example_entries()
        journal.create(_header(), entries)
        for after in range(len(entries) + 1):
            _assert_same(journal.read("study", after=after), entries[after:])

    def test_append_after_a_wrong_number_writes_nothing(self, tmp_path: Path) -> None:
        """Whoever has not read everything, or claims more than there is, must not write."""
        journal = self._open(tmp_path)
        entries = example_entries()
        journal.create(_header(), entries[:3])
        for after in (0, 1, 2, 4, 100):
            append = functools.partial(journal.append, "study", entries[3:], after=after)
            _assert_raises(ConflictError, append)
            _assert_same(journal.read("study"), entries[:3])
        assert journal.append("study", entries[3:], after=3) == len(entries)
        _assert_raises(ConflictError, lambda: journal.append("study", [_FIRST], after=3))
        _assert_same(journal.read("study"), entries)

    def test_create_twice_is_a_conflict(self, tmp_path: Path) -> None:
        """The first study of a name stays as it is."""
        journal = self._open(tmp_path)
        entries = example_entries()
        journal.create(_header(), entries)
        other = StudyHeader("study", 99, {"other": True})
        _assert_raises(ConflictError, lambda: journal.create(other, [_FIRST]))
        assert journal.header("study") == _header()
        _assert_same(journal.read("study"), entries)

    def test_an_append_is_all_or_nothing(self, tmp_path: Path) -> None:
        """Entries that the journal cannot store leave no trace of those before them.

        A journal without an opinion on them may take them; then it has them all.
        """
        entries = example_entries()
        born = entries[1]
        assert isinstance(born, CandidateAdded)
        bad: list[Entry] = [
            born,  # the same candidate again
            Decision(0, "kind", "reason", {"not JSON": object()}),
            Decision(2**70, "kind", "reason"),
        ]
        for i, entry in enumerate(bad):
            journal = self._open(tmp_path / str(i))
            journal.create(_header(), entries)
            new = [Decision(1, "before", ""), entry, Decision(1, "after", "")]
            try:
                journal.append("study", new, after=len(entries))
            except HyperZeroError:
                _assert_same(journal.read("study"), entries)
            else:
                _assert_same(journal.read("study"), [*entries, *new])
            known = journal.read("study")
            journal.append("study", [_FIRST], after=len(known))
            _assert_same(journal.read("study"), [*known, _FIRST])

    def test_a_create_is_all_or_nothing(self, tmp_path: Path) -> None:
        """A study whose first entries cannot be stored does not exist."""
        journal = self._open(tmp_path)
        born = example_entries()[1]
        new: list[Entry] = [_FIRST, born, born]
        try:
            journal.create(_header(), new)
        except HyperZeroError:
            assert journal.studies() == []
            journal.create(_header(), new[:2])
            _assert_same(journal.read("study"), new[:2])
        else:
            _assert_same(journal.read("study"), new)

    def test_studies_do_not_see_each_other(self, tmp_path: Path) -> None:
        """The same candidates, rounds and readings may stand in several studies."""
        journal = self._open(tmp_path)
        entries = example_entries()
        for name in ("one", "two", "One"):
            journal.create(StudyHeader(name, 0, _SPEC), [_FIRST])
        journal.append("one", entries, after=1)
        _assert_same(journal.read("two"), [_FIRST])
        journal.append("two", entries[1:], after=1)
        _assert_same(journal.read("one"), [_FIRST, *entries])
        _assert_same(journal.read("two"), [_FIRST, *entries[1:]])
        _assert_same(journal.read("One"), [_FIRST])

    def test_an_unknown_study_is_an_error_that_names_the_known(self, tmp_path: Path) -> None:
        """``header``, ``read`` and ``append`` of a study that is not there."""
        journal = self._open(tmp_path)
        calls: list[Callable[[], object]] = [
            lambda: journal.header("none"),
            lambda: journal.read("none"),
            lambda: journal.append("none", [_FIRST], after=0),
        ]
        for call in calls:
            assert "none" in str(_assert_raises(StudyNotFoundError, call))
        journal.create(StudyHeader("feed", 0, _SPEC), [_FIRST])
        journal.create(StudyHeader("shorts", 0, _SPEC), [_FIRST])
        for call in calls:
            message = str(_assert_raises(StudyNotFoundError, call))
            assert "feed" in message, f"the message names no known study: {message}"
            assert "shorts" in message, f"the message names one known study only: {message}"
        assert journal.studies() == ["feed", "shorts"]

    def test_lists_are_not_shared_with_the_caller(self, tmp_path: Path) -> None:
        """What the caller does to a list that it gave or got changes nothing."""
        journal = self._open(tmp_path)
        entries = example_entries()
        first, second = entries[:2], entries[2:]
        journal.create(_header(), first)
        journal.append("study", second, after=2)
        first.clear()
        second.clear()
        journal.read("study").clear()
        journal.read("study", after=1).clear()
        journal.studies().clear()
        _assert_same(journal.read("study"), entries)
        assert journal.studies() == ["study"]

    def test_reopening_gives_the_same(self, tmp_path: Path) -> None:
        """Another process sees every study, header and entry, and goes on with them."""
        journal = self._open(tmp_path)
        entries = example_entries()
        journal.create(_header(), entries)
        journal.create(StudyHeader("other", 3, {}), [_FIRST])
        second = self._reopen(journal)
        assert second.studies() == ["other", "study"]
        assert second.header("study") == _header()
        _assert_same(second.read("study"), entries)
        assert second.append("study", [_FIRST], after=len(entries)) == len(entries) + 1
        _assert_same(journal.read("study"), [*entries, _FIRST])
        journal.close()
        _assert_same(self._reopen(second).read("study"), [*entries, _FIRST])

    def test_of_two_writers_the_one_who_has_not_read_loses(self, tmp_path: Path) -> None:
        """No writer overtakes another: the loser writes nothing until it has read."""
        journal = self._open(tmp_path)
        journal.create(_header(), [_FIRST])
        second = self._reopen(journal)
        mine, theirs = Decision(0, "mine", ""), Decision(0, "theirs", "")
        second.append("study", [theirs], after=1)
        _assert_raises(ConflictError, lambda: journal.append("study", [mine], after=1))
        _assert_raises(ConflictError, lambda: second.create(_header(), [_FIRST]))
        _assert_same(journal.read("study", after=1), [theirs])
        assert journal.append("study", [mine], after=2) == 3
        _assert_same(second.read("study"), [_FIRST, theirs, mine])

    def test_readings_of_compacted_rounds_may_go_and_nothing_else(self, tmp_path: Path) -> None:
        """All or none of them, whichever message brought them; numbers and order stay."""
        journal = self._open(tmp_path)
        two = ReadingsReceived((0, 7), (1, 0), (1, 1), (2, 0), (0.1, 12.5), (0.0, -1.0), (0.0, 2.0))
        before: list[Entry] = [_FIRST, _received((0, 1), mean=(0.1, 0.3)), two, _FIRST]
        journal.create(_header(), before)
        journal.create(StudyHeader("other", 1, _SPEC), before)
        compacted = Compacted((0,), (2, 3), 3, _evidence(0.1))
        assert journal.append("study", [compacted], after=4) == 5
        left = [without(e, {0}) if isinstance(e, ReadingsReceived) else e for e in before]
        got = journal.read("study")
        if got[1] == before[1]:
            left = before  # a journal that forgets nothing
        _assert_same(got, [*left, compacted])
        _assert_same(journal.read("study", after=2), [*left[2:], compacted])
        _assert_same(journal.read("other"), before)
        again = Compacted((7,), (3,), 1, compacted.evidence)
        assert journal.append("study", [again, _FIRST], after=5) == 7
        left = [without(e, {7}) if isinstance(e, ReadingsReceived) else e for e in left]
        got = journal.read("study")
        _assert_same(got, [*(left if got[2] == left[2] else before), compacted, again, _FIRST])
        second = self.reopen(journal)
        if second is not None:
            _assert_same(second.read("study"), got)

    def _open(self, folder: Path) -> Journal:
        folder.mkdir(parents=True, exist_ok=True)
        return self.make_journal(folder)

    def _reopen(self, journal: Journal) -> Journal:
        second = self.reopen(journal)
        if second is None:
            raise SkipTest("entries of this journal do not outlive it")
        return second


_KINDS: tuple[type, ...] = (
    Configured,
    CandidateAdded,
    Planned,
    ReadingsReceived,
    Decision,
    Compacted,
)


def example_entries() -> list[Entry]:
    """A small study in which every kind of entry occurs."""
    return [
        Configured({"num_draws": 10, "control_share": "auto", "anchor": True, "x": 0.1 + 0.2}),
        CandidateAdded(0, 0, "base", (0.25, 3.0), {"w": 0.25, "depth": 3, "mode": "a"}),
        CandidateAdded(1, 0, "initial", (1 / 3, 1.0), {"w": 1 / 3, "depth": 1, "mode": "b"}),
        Planned(0, (0, 1), (0, 10), (0.5, 0.5), "hour 0", {"why": None, "proposed": []}),
        _received((0, 1), mean=(0.1, 0.3)),
        Compacted((8, 9), (12, 13), 40, _evidence(0.1, -0.0)),
        Planned(7, (0, 1), (0, 20), (0.1 + 0.2, 1 - (0.1 + 0.2)), None, {"fit": {"a": [[1e-9]]}}),
        _received((0, 1), mean=(0.2, 0.4), revision=1),
        ReadingsReceived((0, 7), (1, 0), (1, 1), (2, 0), (0.0, 12.5), (0.0, -1.0), (0.0, 2.0)),
        Decision(7, "fallback", "the fit failed", {"tries": 3, "where": "surrogate"}),
    ]


def random_entries(generator: random.Random, num: int) -> list[Entry]:
    """Entries of random kinds and sizes; no two of them claim the same candidate or round."""

    def number() -> float:
        if generator.random() < 0.2:
            return generator.choice(HARD_FLOATS)
        return math.ldexp(generator.uniform(-1, 1), generator.randint(-40, 40))

    def several(size: int) -> tuple[float, ...]:
        return tuple(number() for _ in range(size))

    def details() -> dict[str, Any]:
        return {generator.choice(HARD_NAMES): list(several(2)) for _ in range(2)}

    entries: list[Entry] = []
    for i in range(num):
        size = generator.randint(1, 5)
        arms = tuple(sorted(generator.sample(range(1000), size)))
        kind = generator.choice(_KINDS)
        if kind is Configured:
            entries.append(Configured(details()))
        elif kind is CandidateAdded:
            entries.append(CandidateAdded(i, i // 2, "proposal", several(size), details()))
        elif kind is Planned:
            entries.append(Planned(i, arms, tuple(range(size)), several(size), None, details()))
        elif kind is ReadingsReceived:
            rows = ((i,) * size, arms, (i % 3,) * size, (i % 2,) * size)
            entries.append(ReadingsReceived(*rows, several(size), several(size), several(size)))
        elif kind is Compacted:  # of rounds that have no readings
            entries.append(Compacted((num + i,), arms, size, _evidence(*several(size))))
        else:
            entries.append(Decision(i, "kind", generator.choice(HARD_NAMES), details()))
    return entries


def _evidence(*means: float) -> dict[str, Any]:
    """Of some candidates, one metric, one arm of each, one hour of the day."""
    size = {"c": len(means), "m": 1, "a": len(means), "h": 1}
    arrays = {
        name: np.ones([size[a] for a in axes], {"i": np.int64, "f": np.float64}[kind])
        for name, (kind, axes) in EVIDENCE.items()
    }
    arrays["candidate"] = arrays["exposed_row"] = np.arange(len(means))
    arrays["mean"] = np.array(means)[:, None]
    return {name: pack_array(array) for name, array in arrays.items()}


def _header() -> StudyHeader:
    return StudyHeader("study", 5, _SPEC)


def _received(
    candidates: Sequence[int], mean: Sequence[float], revision: int = 0
) -> ReadingsReceived:
    num = len(candidates)
    return ReadingsReceived(
        round=(0,) * num,
        candidate=tuple(candidates),
        metric=(0,) * num,
        revision=(revision,) * num,
        count=(1000.0,) * num,
        mean=tuple(mean),
        var=(5e-324,) * num,
    )


_Plain: TypeAlias = Any


def _bits(value: _Plain) -> _Plain:
    """A value in which floats are their bits, so that -0.0 is not 0.0."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, Mapping):
        return {key: _bits(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_bits(v) for v in value)
    return value


def _assert_same(got: Sequence[Entry], want: Sequence[Entry]) -> None:
    """Equal kinds, equal values and equal bits."""
    assert len(got) == len(want), f"{len(want)} entries were written, {len(got)} came back"
    for number, (g, w) in enumerate(zip(got, want), start=1):
        assert type(g) is type(w), f"entry {number} of these: wrote {w!r:.300}, read {g!r:.300}"
        for name, value in vars(w).items():
            back = getattr(g, name)
            assert back == value, (
                f"entry {number}, {name}: wrote {value!r:.300}, read {back!r:.300}"
            )
            assert _bits(back) == _bits(value), f"entry {number}, {name}: other bits or types"


def _assert_raises(kind: type[Exception], call: Callable[[], object]) -> Exception:
    try:
        result = call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, the call returned {result!r:.200}")
