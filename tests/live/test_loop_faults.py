"""What the loop does when the world breaks: full disks, a database that restarts, parts that answer
hours late or never, objectives that fail. In each: what is served, what is kept, what is told.
"""

import contextlib
import errno
import json
import logging
import resource
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict

import pytest
import sqlalchemy as sa
import torch
from support.live_loop import CONFIG, HOUR, Platform, loop_of, make, reading, stored
from support.postgres import shared_server, why_not

import hyperzero_torch as hz
from hyperzero_torch.cli.live import drive
from hyperzero_torch.live import Collected, FlagdUpdater, TableUpdater
from hyperzero_torch.live.clock import SimulatedClock
from hyperzero_torch.live.retry import Component, RetryPolicy
from hyperzero_torch.study.journal import Planned, ReadingsReceived


class Served(Platform):
    """A platform that serves from a file; its warehouse knows who was served."""

    def __init__(self, updater, **how):
        super().__init__(**how)
        self.updater = updater

    def apply(self, plan):
        self._suffer("apply")
        self.updater.apply(plan)
        self.applied.append(plan)

    def withdraw(self):
        self.updater.withdraw()

    @property
    def file(self):
        return self.updater.path.read_bytes()


def told_once(tuner, platform, done):
    """Every round that was served is in the tables, and every reading came as news once."""
    served = {p.round for p in platform.applied}
    last = tuner.history.last_round
    assert {key[0] for key in stored(tuner)} == {r for r in served if r < last}
    assert sum(d.rows for d in done) == len(stored(tuner))


def remarks_of(tuner, kind):
    return [
        d for d in tuner.history.decisions if d.kind == kind and d.trace.facts.get("origin") is None
    ]


# --- a full disk --------------------------------------------------------------------------------


class SmallDisk:
    """A file system of a megabyte, to be filled and emptied."""

    def __init__(self, folder):
        self.folder = folder
        self.ballast = folder / "ballast"

    def fill(self):
        with self.ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)
        with pytest.raises(OSError, match="No space left") as caught:
            (self.folder / "more").write_bytes(b"x" * 4096)
        assert caught.value.errno == errno.ENOSPC
        (self.folder / "more").unlink(missing_ok=True)

    def free(self):
        self.ballast.unlink()

    def names(self):
        return sorted(p.name for p in self.folder.iterdir() if p != self.ballast)


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["database", "disk"])
def full_journal(request, tmp_path):
    """A journal whose place fills up: its own limit of pages, and a file system without space."""
    if request.param == "database":
        url = f"sqlite:///{tmp_path / 'study.db'}"
        return url, _limit_pages, lambda tuner: _limit_pages(tuner, 2**30)
    disk = request.getfixturevalue("disk")
    return f"sqlite:///{disk.folder / 'study.db'}", lambda t: disk.fill(), lambda t: disk.free()


def _limit_pages(tuner, pages=1):
    """SQLite's own limit, never below what is used already."""
    with tuner.journal.database.engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


def test_a_journal_without_space_costs_rounds_and_nothing_else(full_journal, tmp_path):
    """No plan without its entry: what was served goes on. With space again all is told and kept."""
    url, fill, free = full_journal
    tuner = make(url)
    platform = Served(FlagdUpdater(tmp_path / "served.json"))
    steps = loop_of(tuner, platform).run()
    done = [next(steps) for _ in range(3)]
    fill(tuner)
    before = platform.file
    while (first := next(steps)).plan is not None:  # the last page may have room for a plan
        done.append(first)
        before = platform.file
    end, lost = first.round, [first, next(steps), next(steps)]
    assert end < 12
    assert all(d.plan is None and not d.applied for d in lost)
    assert all("database or disk is full" in d.notes[-1] for d in lost)
    assert platform.file == before
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        plans = connection.exec_driver_sql("SELECT DISTINCT round FROM plans").scalars().all()
    engine.dispose()
    assert sorted(plans) == list(range(end))
    again = hz.Tuner.resume(url, problem=tuner.problem)  # what is there folds as it is
    assert set(again.history.plans) == set(range(end))
    again.journal.close()
    free(tuner)
    after = [next(steps) for _ in range(3)]
    assert [d.round for d in after] == [end + 3, end + 4, end + 5]
    assert all(d.applied for d in after)
    assert {p.round for p in platform.applied} == {*range(end), end + 3, end + 4, end + 5}
    told_once(tuner, platform, done + lost + after)
    notes = [d for d in remarks_of(tuner, "journal") if "planning round" in d.reason]
    assert [d.trace.facts["in_round"] for d in notes] == [end, end + 1, end + 2]
    assert all("database or disk is full" in d.reason for d in notes)
    tuner.journal.close()


@contextlib.contextmanager
def only_short_files():
    """No file grows beyond 16 bytes: writing fails half-way, for whoever is not root too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", [FlagdUpdater, TableUpdater])
def test_flags_that_cannot_be_written_whole_stay_as_they_are(tmp_path, kind):
    tuner, platform = make(), Served(kind(tmp_path / "served.json"))
    steps = loop_of(tuner, platform).run(5)
    done = [next(steps) for _ in range(2)]
    before = platform.file
    with only_short_files():
        lost = [next(steps) for _ in range(2)]
    assert platform.file == before
    assert [p.name for p in tmp_path.iterdir()] == ["served.json"]
    assert all(d.plan is not None and not d.applied for d in lost)
    after = list(steps)
    assert after[0].applied
    assert platform.file != before
    told_once(tuner, platform, done + lost + after)
    notes = remarks_of(tuner, "platform")
    assert [d.trace.facts["in_round"] for d in notes] == [2, 3]
    assert all("File too large" in d.reason for d in notes)


def test_flags_on_a_full_disk_stay_as_they_are(disk):
    tuner, platform = make(), Served(FlagdUpdater(disk.folder / "served.json"))
    steps = loop_of(tuner, platform).run(5)
    done = [next(steps) for _ in range(2)]
    before = platform.file
    disk.fill()
    lost = [next(steps) for _ in range(2)]
    assert platform.file == before
    json.loads(before)
    assert disk.names() == ["served.json"]
    disk.free()
    after = list(steps)
    assert [d.applied for d in done + lost + after] == [True, True, False, False, True]
    told_once(tuner, platform, done + lost + after)
    assert all("No space left on device" in d.reason for d in remarks_of(tuner, "platform"))
    assert len(remarks_of(tuner, "platform")) == 2


def test_space_that_comes_back_between_two_tries_costs_nothing(disk):
    class Janitor(SimulatedClock):
        def sleep(self, seconds):
            if disk.ballast.exists():
                disk.free()
            return super().sleep(seconds)

    platform = Served(FlagdUpdater(disk.folder / "served.json"))
    loop = loop_of(make(), platform, Janitor())
    loop.step(0)
    disk.fill()
    done = loop.step(1)
    assert not disk.ballast.exists()
    assert done.applied
    assert not done.notes
    assert [p.round for p in platform.applied] == [0, 1]


# --- PostgreSQL that goes away ------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    return shared_server()


@pytest.mark.parametrize(
    "when", ["INSERT INTO readings", "INSERT INTO entries", "INSERT INTO plans"]
)
def test_a_database_that_restarts_in_mid_round_is_not_noticed(server, when, monkeypatch):
    """The round is tried again: the plans and the entries of a study left in peace."""
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)  # the epoch of both

    def study(journal, disturb):
        tuner, platform = make(journal), Platform()
        steps = loop_of(tuner, platform).run(5)
        done = [next(steps) for _ in range(3)]
        restarts = disturb(tuner)
        done += list(steps)
        entries = tuner.journal.read("default")
        tuner.journal.close()
        return [d.plan for d in done], entries, [d for d in done if d.notes], restarts

    def disturb(tuner):
        restarted = []

        def restart(connection, cursor, statement, *_):
            if when in statement and not restarted:
                restarted.append(statement)
                server.restart("immediate")

        sa.event.listen(tuner.journal.database.engine, "before_cursor_execute", restart)
        return restarted

    plans, entries, noted, restarts = study(server.schema(), disturb)
    assert len(restarts) == 1
    calm_plans, calm_entries, _, _ = study(None, lambda tuner: [])
    assert plans == calm_plans
    assert entries == calm_entries
    assert not noted


def test_a_database_that_is_down_for_hours_costs_these_rounds_and_no_reading(server):
    tuner, platform = make(server.schema()), Platform()
    steps = loop_of(tuner, platform).run(8)
    done = [next(steps) for _ in range(2)]
    server.halt("immediate")
    try:
        lost = [next(steps) for _ in range(3)]
    finally:
        server.start()
    assert all(d.plan is None and not d.applied and d.notes for d in lost)
    after = list(steps)
    assert [d.round for d in after] == [5, 6, 7]
    assert all(d.applied and not d.notes for d in after)
    told_once(tuner, platform, done + lost + after)
    assert {d.trace.facts["in_round"] for d in remarks_of(tuner, "journal")} == {2, 3, 4}
    tuner.journal.close()


# --- parts that answer hours late, or never -----------------------------------------------------

# Long enough for what answers, on a busy machine too.
QUICK = RetryPolicy(attempts=2, first_wait=0.0, timeout=0.3)
# For calls that write a file: a busy disk may take a second to store it.
WRITING = RetryPolicy(attempts=2, first_wait=0.0, timeout=3.0)


class Hours:
    """Calls that come back when their hour has come; ``None`` for never."""

    def __init__(self, late):
        self.late, self.gates, self.calls = late, defaultdict(threading.Event), {}

    def hang(self, round_):
        self.calls[round_] = threading.current_thread()
        self.gates[round_].wait(60)

    def pass_to(self, round_):
        """Let the calls that are due go on, and wait until each has ended, files and all."""
        for one in [r for r in self.gates if self.late is not None and r + self.late <= round_]:
            self.gates[one].set()
            self.calls[one].join(60)

    def release(self):
        for gate in self.gates.values():
            gate.set()


@pytest.fixture
def hours(request):
    made = Hours(request.param)
    yield made
    made.release()


def in_time(tuner):
    """The same study, had every reading come right after its round's plan."""
    journal = hz.MemoryJournal()
    twin = hz.Tuner(tuner.problem, CONFIG, journal, tuner.study.name, tuner.seed)
    known = {key[0] for key in stored(tuner)}
    entries = tuner.journal.read(tuner.study.name)
    for entry in entries[1:]:
        if not isinstance(entry, ReadingsReceived):
            journal.append(tuner.study.name, [entry], after=len(journal.read(tuner.study.name)))
        if isinstance(entry, Planned) and entry.round in known:
            twin.study.sync()
            twin.tell(reading(twin.study.plan(entry.round)))
    return twin


@pytest.mark.parametrize("hours", [6], indirect=True)
def test_a_warehouse_that_answers_six_hours_late_is_as_good_as_one_in_time(hours):
    """Its answers are taken when they come; rounds go on, each says so, evidence ends the same."""
    tuner, platform = make(), Platform()
    honest = platform.collect

    def collect(as_of, planned, missing=()):
        collected = honest(as_of, planned, missing)
        hours.hang(as_of)
        return collected

    platform.collect = collect
    steps = loop_of(tuner, platform, retry=QUICK).run(10)
    done = []
    for round_ in range(10):
        hours.pass_to(round_)
        done.append(next(steps))
    assert all(d.applied for d in done)
    # What was asked for in round 1, of round 0, is there in round 7; and so on.
    assert [bool(d.rows) for d in done] == [False] * 7 + [True] * 3
    assert {key[0] for key in stored(tuner)} == set(range(3))
    assert sum(d.rows for d in done) == len(stored(tuner))
    notes = remarks_of(tuner, "warehouse")
    assert [d.trace.facts["in_round"] for d in notes] == list(range(1, 10))
    late, twin = tuner.bucket(), in_time(tuner).bucket()
    for field in ("mean", "var", "weight", "num_rounds", "dispersion"):
        torch.testing.assert_close(
            getattr(late, field), getattr(twin, field), rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("hours", [None], indirect=True)
def test_a_warehouse_that_never_answers_holds_up_nothing(hours):
    tuner, platform = make(), Platform()
    platform.collect = lambda as_of, planned, missing=(): hours.hang(as_of)
    loop = loop_of(tuner, platform, retry=QUICK)
    done = list(loop.run(11))
    assert all(d.applied for d in done)
    assert [d.round for d in done] == list(range(11))
    assert len(remarks_of(tuner, "warehouse")) == 10
    assert len(hours.gates) == 8  # connections that hang are not piled up without end
    assert not stored(tuner)


@pytest.mark.parametrize("hours", [None], indirect=True)
def test_one_call_that_never_comes_back_costs_one_round(hours):
    """A connection that died: the next hour asks anew."""
    tuner, platform = make(), Platform()
    platform.trouble["collect"] = [None, lambda: hours.hang(2)]
    done = list(loop_of(tuner, platform, retry=QUICK).run(5))
    assert [bool(d.notes) for d in done] == [False, False, True, False, False]
    assert {key[0] for key in stored(tuner)} == {0, 1, 2, 3}


@pytest.mark.parametrize("hours", [6], indirect=True)
def test_a_platform_that_answers_six_hours_late_never_serves_the_older_over_the_newer(
    hours, tmp_path
):
    """While it is at work nothing else is sent; rounds are planned; then the newest is served."""
    tuner, platform = make(), Served(TableUpdater(tmp_path / "table.json"))
    platform.trouble["apply"] = [None, None, lambda: hours.hang(2)]
    steps = loop_of(tuner, platform, retry=WRITING).run(11)
    done, tables = [], []
    for round_ in range(11):
        hours.pass_to(round_)
        done.append(next(steps))
        tables.append(json.loads(platform.file)["round"])
    assert [d.applied for d in done] == [True] * 2 + [False] * 6 + [True] * 3
    # In round 8 the call of round 2 has come back; the plan of round 8 replaces it at once.
    assert tables == [0, 1, 1, 1, 1, 1, 1, 1, 8, 9, 10]
    assert [p.round for p in platform.applied] == [0, 1, 2, 8, 9, 10]
    assert all(d.plan is not None for d in done)
    assert [d.trace.facts["in_round"] for d in remarks_of(tuner, "platform")] == list(range(2, 8))
    told_once(tuner, platform, done)


@pytest.mark.parametrize("hours", [None], indirect=True)
def test_a_platform_that_never_answers_keeps_what_it_serves(hours, tmp_path):
    tuner, platform = make(), Served(FlagdUpdater(tmp_path / "flags.json"))
    platform.trouble["apply"] = [None, lambda: hours.hang(1)]
    steps = loop_of(tuner, platform, retry=WRITING).run(8)
    next(steps)
    before = platform.file
    done = list(steps)
    assert platform.file == before
    assert len(hours.gates) == 1  # nothing was sent beside the call that hangs
    assert not any(d.applied for d in done)
    assert len({d.plan.round for d in done}) == 7
    assert len(remarks_of(tuner, "platform")) == 7
    assert {key[0] for key in stored(tuner)} == {0}


def test_a_call_that_exits_is_a_failure_like_others():
    component = Component(RetryPolicy(1, 0.0, 5.0), SimulatedClock())
    with pytest.raises(hz.GivenUpError, match=r"asking failed once; last error: .*SystemExit"):
        component.call("asking", sys.exit)


def test_a_late_answer_is_handed_out_once():
    gate = threading.Event()
    part = Component(RetryPolicy(1, 0.0, 0.05), SimulatedClock(), reads=True)
    with pytest.raises(hz.GivenUpError, match="no answer in"):
        part.call("asking", lambda: gate.wait(30) and "late")
    assert part.late_answers() == []
    assert part.call("asking", lambda: "in time") == "in time"
    gate.set()
    late = []
    for _ in range(500):
        late += part.late_answers()
        if late:
            break
        time.sleep(0.01)
    assert late == ["late"]
    assert part.late_answers() == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "a source must return Collected"),
        ({"readings": None}, "got dict"),
        (lambda: Collected([1, 2]), "one hz.Readings or None, got list"),
        (lambda: Collected(excluded_rounds={0: ""}), "excluded_rounds must map rounds"),
        (lambda: Collected(excluded_rounds=["round 0"]), "map rounds to reasons"),
        (lambda: Collected(excluded_users={0: 3}), "map rounds to counts"),
    ],
)
def test_a_source_that_answers_nonsense_is_a_warehouse_that_failed(answer, says):
    tuner, platform = make(), Platform()
    honest = platform.collect

    def collect(as_of, *rest):
        if as_of > 2:
            return honest(as_of, *rest)
        return answer() if callable(answer) else answer

    platform.collect = collect
    done = list(loop_of(tuner, platform).run(4))
    assert all(d.applied for d in done)
    notes = remarks_of(tuner, "warehouse")
    assert len(notes) == 2
    assert all("ReadingsError" in d.reason and says in d.reason for d in notes)
    assert {key[0] for key in stored(tuner)} == {0, 1, 2}


# --- planning that fails by itself --------------------------------------------------------------


class Objective(torch.nn.Module):
    """An objective of the user's that can be broken."""

    def __init__(self):
        super().__init__()
        self.breaks, self.calls = [], 0

    def forward(self, deltas):
        self.calls += 1
        if self.breaks:
            error = self.breaks.pop(0)
            if error is not None:
                raise error
        return deltas[..., 0]


@pytest.fixture
def broken():
    objective = Objective()
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.4}, ["gain", "guard"], objective, ["guard >= -50%"])
    return objective, hz.Tuner(problem, CONFIG, seed=0)


def test_an_objective_that_fails_keeps_what_is_served_and_is_said_by_its_name(
    broken, tmp_path, caplog
):
    objective, tuner = broken
    platform = Served(TableUpdater(tmp_path / "table.json"))
    clock = SimulatedClock(1_000_000.0)
    steps = loop_of(tuner, platform, clock).run(6)
    done = [next(steps) for _ in range(3)]
    before, calls = platform.file, objective.calls
    objective.breaks = [ZeroDivisionError("no views"), *[KeyError("watch")] * 3]
    with caplog.at_level(logging.INFO):
        lost = [next(steps) for _ in range(2)]
    assert objective.calls == calls + 4  # twice a round, not as patiently as a journal
    assert platform.file == before
    assert all(d.plan is None and not d.applied for d in lost)
    assert lost[0].rows  # readings are recorded all the same
    after = list(steps)
    assert after[-1].applied
    told_once(tuner, platform, done + lost + after)
    assert not remarks_of(tuner, "journal")
    assert not remarks_of(tuner, "planning")
    notes = remarks_of(tuner, "error")
    assert [d.reason for d in notes] == [
        f"planning round {r} failed: KeyError: 'watch'" for r in (3, 4)
    ]
    logged = [r for r in caplog.records if getattr(r, "part", None) == "error"]
    assert [r.exc_info[0] for r in logged] == [KeyError, KeyError]


def test_an_objective_that_fails_once_costs_nothing(broken):
    objective, tuner = broken
    platform = Platform()
    steps = loop_of(tuner, platform).run(5)
    for _ in range(3):
        next(steps)
    objective.breaks = [RuntimeError("CUDA error: busy")]
    assert all(d.applied and not d.notes for d in steps)


def test_a_single_attempt_does_not_make_a_fault_the_journals(broken):
    objective, tuner = broken
    steps = loop_of(tuner, Platform(), retry=RetryPolicy(1, 0.0, 5.0)).run(4)
    for _ in range(3):
        next(steps)
    objective.breaks = [ValueError("odd")] * 2
    assert "ValueError: odd" in next(steps).notes[0]
    assert [d.kind for d in tuner.history.decisions][-1] == "error"


def test_metrics_that_fail_do_not_end_the_loop(tmp_path, monkeypatch, caplog):
    """What is told of a round is a recommendation too, which asks the user's objective."""
    pytest.importorskip("prometheus_client")
    tuner, platform, file = make(), Platform(), tmp_path / "metrics.prom"

    def recommend(*_):
        raise ZeroDivisionError("no views")

    monkeypatch.setattr(tuner, "recommend", recommend)
    with caplog.at_level(logging.WARNING):
        drive(tuner, loop_of(tuner, platform), 3, None, file)
    assert [p.round for p in platform.applied] == [0, 1, 2]
    assert caplog.text.count("metrics: ZeroDivisionError: no views") == 3


# --- clocks and company -------------------------------------------------------------------------


def test_a_clock_that_is_behind_at_the_start_waits_too():
    """Restarted on a machine whose clock is wrong: the round that was planned stays the last."""
    tuner, platform = make(), Platform()
    clock = SimulatedClock(100 * HOUR)
    list(loop_of(tuner, platform, clock).run(3))
    clock.time -= 2.5 * HOUR
    started = clock.now()
    (done,) = loop_of(tuner, platform, clock).run(1)
    assert done.round == 2
    assert clock.now() >= started + 1.5 * HOUR
    assert len([d for d in tuner.history.decisions if "waiting for it" in d.reason]) == 1


def test_each_stepping_back_is_remarked_on_once():
    tuner, platform = make(), Platform()
    clock = SimulatedClock(100 * HOUR)
    steps = loop_of(tuner, platform, clock).run(6)
    for _ in range(2):
        next(steps)
        next(steps)
        clock.time -= 3.2 * HOUR
    rest = list(steps)
    assert [d.round for d in rest] == [4, 5]
    assert len([d for d in tuner.history.decisions if "waiting for it" in d.reason]) == 2


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_two_loops_at_the_same_moment_make_one_plan_a_round_and_tell_once(place, tmp_path, request):
    if place == "sqlite":
        url = f"sqlite:///{tmp_path / 'study.db'}"
    else:
        url = request.getfixturevalue("server").schema()
    path, rounds, barrier = tmp_path / "table.json", 4, threading.Barrier(2, timeout=60)
    platforms = [Served(TableUpdater(path)) for _ in range(2)]
    decided = [[], []]

    def drive(me):
        tuner = make(url)
        for done in loop_of(tuner, platforms[me], SimulatedClock(10_000.0)).run(rounds):
            decided[me].append(done)
            barrier.wait()
        tuner.journal.close()

    make(url).journal.close()
    threads = [threading.Thread(target=drive, args=(me,)) for me in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [d.plan for d in decided[0]] == [d.plan for d in decided[1]]
    assert len(decided[0]) == rounds
    tuner = hz.Tuner.resume(url, problem=make().problem)
    assert set(tuner.history.plans) == set(range(rounds))
    assert json.loads(path.read_text())["round"] == rounds - 1
    assert {key[0] for key in stored(tuner)} == set(range(rounds - 1))
    assert sum(d.rows for both in decided for d in both) == len(stored(tuner))
    tuner.journal.close()
