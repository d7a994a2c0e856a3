"""What must hold after every step of a simulated study, whatever has gone wrong before.

The checks read the entries as they are written, the file as it is served, and what the warehouse
has handed out. They do not ask the study that they check.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperzero_torch.errors import ConfigError, HyperZeroError
from hyperzero_torch.live.serve.updater import assign, read_table
from hyperzero_torch.study.history import CONTROL, History, history_of
from hyperzero_torch.study.journal import (
    CandidateAdded,
    Configured,
    Decision,
    Entry,
    Journal,
    MemoryJournal,
    Planned,
    ReadingsReceived,
    StudyHeader,
)
from hyperzero_torch.study.journal.verified import ChainedJournal

from .actors import Operator
from .processes import Scheduler
from .study import CONFIG, HOUR, NAME, SmallTuner, Warehouse, problem

#: Names of the invariants.
INVARIANTS = (
    "every reading once", "one plan a round", "shares sum to 1", "no stopped arm is served",
    "no cap is exceeded", "the control when in doubt", "a lease is never outlived",
    "no older plan after a newer one", "the resumed plan is the uninterrupted one",
    "the chain verifies", "the study goes on",
)  # fmt: skip
_LEASE_ROUNDS = 2
_EPS = 1e-9
_USERS = ("ada", "bob")
_BASE = {"a": 0.4}


class ViolationError(AssertionError):
    """An invariant does not hold; ``name`` says which."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


def require(holds: bool, name: str, text: str) -> None:
    """Raise ``ViolationError`` unless it holds."""
    if not holds:
        raise ViolationError(name, text)


class Checks:
    """The invariants of one study.

    Args:
        scheduler: knows the time.
        warehouse: has handed out the readings, and learns which arms were served.
        operator: has thrown switches.
        table: what is served.
    """

    def __init__(
        self, scheduler: Scheduler, warehouse: Warehouse, operator: Operator, table: Path
    ) -> None:
        self.scheduler, self.warehouse, self.operator = scheduler, warehouse, operator
        self.path = table
        self.header: StudyHeader | None = None
        self.entries: list[Entry] = []
        self.batches: list[int] = []  # number of entries before each append
        self.served: list[bytes] = []  # contents of the file, oldest first
        self.plans: dict[tuple[str, int], str] = {}  # digests served, by epoch and round
        self.origins: set[float] = set()
        self.num_steps = 0
        self._checked: tuple[object, ...] = ()
        self._table: dict[str, Any] | None = None
        self._restart()

    # --- the journal

    def wrote(self, study: str, entries: Sequence[Entry]) -> None:
        """An append took effect."""
        require(study == NAME, "the study goes on", f"study {study!r} was written")
        self.batches.append(len(self.entries))
        self.entries.extend(entries)

    def lose(self, batches: int) -> int:
        """The latest appends are lost; returns the number of entries that are left.

        The first one, which started the study, stays.
        """
        keep = max(1, len(self.batches) - batches)
        if keep < len(self.batches):
            del self.entries[self.batches[keep] :]
            del self.batches[keep:]
            self._restart()
        return len(self.entries)

    def copied(self) -> MemoryJournal:
        """A journal in memory with the entries that are left, appended as they were."""
        journal = MemoryJournal()
        ends = [*self.batches[1:], len(self.entries)]
        for begin, end in zip(self.batches, ends):
            if begin == 0 and self.header is not None:
                journal.create(self.header, self.entries[:end])
            elif begin:
                journal.append(NAME, self.entries[begin:end], after=begin)
        return journal

    def _restart(self) -> None:
        self._num_checked = 0
        self._keys: set[tuple[int, ...]] = set()
        self._history: History | None = None
        self._last: Planned | None = None

    def __call__(self) -> None:
        """Check everything that is new since the last step."""
        self.num_steps += 1
        self._check_served()
        new = self.entries[self._num_checked :]
        if not new or self.header is None:
            return
        if self._history is None:
            self._history = history_of(self.header)
        for entry in new:
            if isinstance(entry, ReadingsReceived):
                self._check_readings(entry)
            elif isinstance(entry, Planned):
                self._check_plan(entry, self._history)
            elif isinstance(entry, Decision) and entry.kind == "clock":
                origin = dict(entry.details).get("origin")
                if isinstance(origin, int | float):
                    self.origins.add(float(origin))
            try:
                self._history.extend([entry])
            except HyperZeroError as error:
                raise ViolationError("the study goes on", f"no history: {error}") from error
        self._num_checked = len(self.entries)

    def _check_readings(self, entry: ReadingsReceived) -> None:
        name = "every reading once"
        columns = zip(entry.round, entry.candidate, entry.metric, entry.revision)
        for key, value in zip(columns, zip(entry.count, entry.mean, entry.var)):
            require(key not in self._keys, name, f"{key} is there twice")
            given = self.warehouse.given.get(key, set())
            require(value in given, name, f"{key} is {value}, and was given as {given}")
            self._keys.add(key)

    def _check_plan(self, plan: Planned, history: History) -> None:
        once, total = "one plan a round", math.fsum(plan.shares)
        require(plan.round not in history.plans, once, f"round {plan.round} has two plans")
        require(abs(total - 1) <= 1e-12, "shares sum to 1", f"round {plan.round}: {total!r}")
        stopped = sorted(set(plan.candidates) & set(history.status.stopped))
        require(
            not stopped, "no stopped arm is served", f"{stopped} are in the plan of {plan.round}"
        )
        self._check_caps(plan, history)
        self._last = plan

    def _check_caps(self, plan: Planned, history: History) -> None:
        """Limits of ``TunerConfig``; a person's pins and launches are exempt from them."""
        name, free = "no cap is exceeded", self.operator.pinned | self.operator.launched
        if free or any(isinstance(e, Configured) for e in self.entries[1:]):
            return
        before = {} if self._last is None else dict(zip(self._last.candidates, self._last.shares))
        measured = {key[1] for key in self._keys}
        untested = 0.0
        for candidate, share in zip(plan.candidates, plan.shares):
            if candidate == CONTROL:
                continue
            where = f"candidate {candidate} has {share:.4f} of round {plan.round}"
            require(share <= CONFIG.max_share + _EPS, name, where)
            rise = share - before.get(candidate, 0.0)
            require(rise <= CONFIG.max_share_rise + _EPS, name, f"{where}, {rise:.4f} more")
            if candidate not in measured:
                require(share <= CONFIG.max_untested_share + _EPS, name, f"{where}, untested")
                untested += share
        where = f"{untested:.4f} of round {plan.round} is untested"
        require(untested <= CONFIG.max_untested_total + _EPS, name, where)

    # --- what is served

    def _check_served(self) -> None:
        content = self.path.read_bytes() if self.path.exists() else b""
        if not self.served or content != self.served[-1]:
            self.served.append(content)
            self._table = self._take(content)
        doubt, time = "the control when in doubt", self.scheduler.time
        if self._table is None:
            return
        number, inside = self._table["round"], False
        if number is not None:
            known = [o + number * HOUR for o in self.origins]
            inside = any(b - _EPS <= time < b + _LEASE_ROUNDS * HOUR + _EPS for b in known)
        # Nothing else decides what a user gets.
        facts = (len(self.served), inside, self.operator.withdrawn, len(self.operator.stopped))
        if facts == self._checked:
            return
        arms = {a["candidate"] for a in self._table["arms"] if a["to"] > a["from"]}
        for user in _USERS:
            assigned = assign(self._table, user, lambda: time)
            if assigned.round is None:
                require(assigned.parameters == _BASE, doubt, f"{user} gets {assigned}")
                continue
            require(
                inside, "a lease is never outlived", f"round {number} is served at {time:.0f} s"
            )
            require(
                not self.operator.withdrawn or arms == {CONTROL},
                doubt,
                f"round {number} with {sorted(arms)} is served, and the study is withdrawn",
            )
            wrong = sorted(arms & self.operator.stopped)
            require(not wrong, "no stopped arm is served", f"{wrong} are, in round {number}")
        self._checked = facts

    def forget_served(self) -> None:
        """A person removed the file, or took it over: nothing was served before."""
        self.plans.clear()

    def _take(self, content: bytes) -> dict[str, Any] | None:
        """The table as a reader takes it; None where there is none that can be read."""
        try:
            table = read_table(self.path)
        except ConfigError:
            return None
        stamp, number = table.get("stamp") or {}, table["round"]
        widths = [a["to"] - a["from"] for a in table["arms"]]
        total = math.fsum(a["share"] for a in table["arms"])
        require(abs(total - 1) <= 1e-12, "shares sum to 1", f"served: {total!r}")
        require(abs(math.fsum(widths) - 1) <= 1e-12, "shares sum to 1", f"widths: {widths}")
        if number is None or not stamp:
            return table
        epoch, digest = stamp["epoch"], stamp["plan"]
        before = self.plans.setdefault((epoch, number), digest)
        require(before == digest, "one plan a round", f"two plans of round {number} were served")
        newest = max(r for e, r in self.plans if e == epoch)
        require(newest == number, "no older plan after a newer one", f"{number} is, after {newest}")
        arms = tuple(a["candidate"] for a in table["arms"] if a["to"] > a["from"])
        self.warehouse.arms[number] = arms
        return table

    # --- at the end

    def at_the_end(self, applied: bool, journal: Journal) -> None:
        """After quiet rounds: the study serves again, and nothing is missing.

        Args:
            applied: whether the last quiet round was served.
            journal: as it is stored.
        """
        require(
            journal.read(NAME) == self.entries, "every reading once", "the journal lost entries"
        )
        require(applied, "the study goes on", "the last round was not served")
        assert self._history is not None
        plans, last = self._history.plans, self._history.last_round
        for round_ in self.warehouse.due(last or 0):
            arms = self.warehouse.arms[round_]
            # A plan that was lost with its fsync may have been served before.
            if round_ not in plans or not set(arms) <= set(plans[round_].candidates):
                continue
            revision = self.warehouse.revision.get(round_, 0)
            missing = [c for c in arms if (round_, c, 0, revision) not in self._keys]
            require(not missing, "every reading once", f"{missing} of round {round_} are not there")
        self.check_chain(journal)

    def check_chain(self, journal: Journal) -> None:
        """What is stored is what was written.

        Args:
            journal: as it is stored.
        """
        assert isinstance(journal, ChainedJournal)
        verification = journal.verify(NAME)
        name = "the chain verifies"
        require(verification.ok, name, "; ".join(map(str, verification.faults)))
        number = len(self.entries)
        require(verification.entries == number, name, f"{verification.entries} of {number}")

    def check_resumed(self, most: int = 3) -> int:
        """Make plans anew, in a process that was never interrupted; returns how many."""
        if self.header is None:
            return 0
        ends = [*self.batches[1:], len(self.entries)]
        planned = [
            (begin, end)
            for begin, end in zip(self.batches, ends)
            if any(isinstance(e, Planned) for e in self.entries[begin:end])
        ]
        chosen = planned[:1] + planned[max(1, len(planned) - most + 1) :]
        journal, read = MemoryJournal(), ends[0]
        journal.create(self.header, self.entries[:read])
        tuner = SmallTuner(problem(), None, journal, NAME)
        for begin, end in chosen:
            if begin < read:
                continue
            if begin > read:
                journal.append(NAME, self.entries[read:begin], after=read)
            batch = self.entries[begin:end]
            (round_,) = [e.round for e in batch if isinstance(e, Planned)]
            tuner.ask(round_)
            again, read = journal.read(NAME, after=begin), end
            require(
                again == batch,
                "the resumed plan is the uninterrupted one",
                f"round {round_}: {_kinds(again)} instead of {_kinds(batch)}",
            )
        return len(chosen)


def _kinds(entries: Sequence[Entry]) -> list[str]:
    return [
        f"{type(e).__name__} {e.candidate}" if isinstance(e, CandidateAdded) else type(e).__name__
        for e in entries
    ]
