"""The procedures of docs/how-to/backup.md: backup, restore, upgrade, downgrade.

In each, flags of later rounds than the restored journal knows are in service.
"""

import contextlib
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from support.live_loop import HOUR, Platform, loop_of, make
from support.postgres import PASSWORD, programs, shared_server, why_not

import hyperzero_torch as hz
from hyperzero_torch.live import FlagdUpdater, TableUpdater
from hyperzero_torch.live.clock import SimulatedClock
from hyperzero_torch.live.lease import terms_of
from hyperzero_torch.live.serve.updater import assign, read_table
from hyperzero_torch.study.journal import Planned
from hyperzero_torch.study.journal.schema import FORMAT_VERSION

pytestmark = pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")
FIXTURES = Path(__file__).parents[1] / "fixtures"
START = 400_000 * HOUR
BASE = 0.4


class Sqlite:
    """A journal in a file."""

    def __init__(self, folder):
        self.path, self.copy = folder / "study.db", folder / "study-backup.db"
        self.url = f"sqlite:///{self.path}"

    def back_up(self):
        with (
            contextlib.closing(sqlite3.connect(self.path)) as source,
            contextlib.closing(sqlite3.connect(self.copy)) as target,
        ):
            source.backup(target)

    def restore(self):
        for path in self.path.parent.glob("study.db*"):
            path.unlink()
        shutil.copy(self.copy, self.path)


class Postgres:
    """A journal in a database of its own."""

    def __init__(self, folder):
        self.server, self.copy = shared_server(), folder / "study-backup.dump"
        self.name = self.server.database()
        self.url = self.server.url(self.name)

    def _run(self, program, *arguments):
        url = f"postgresql://tuner@127.0.0.1:{self.server.port}/{self.name}"
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        call = [programs() / program, *arguments, f"--dbname={url}"]
        subprocess.run(call, check=True, env=environment, capture_output=True)

    def back_up(self):
        self._run("pg_dump", "--format=custom", f"--file={self.copy}")

    def restore(self):
        self.name = self.server.database()
        self.url = self.server.url(self.name)
        self._run("pg_restore", self.copy)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    if request.param == "sqlite":
        return Sqlite(tmp_path)
    if why_not():
        pytest.skip(why_not())
    pytest.importorskip("psycopg")
    return Postgres(tmp_path)


class Served(Platform):
    """A platform that serves from a file."""

    def __init__(self, updater):
        super().__init__()
        self.updater = updater

    def on_behalf_of(self, terms):
        other = Served(self.updater.on_behalf_of(terms))
        other.applied, other.asked, other.trouble = self.applied, self.asked, self.trouble
        return other

    def owner(self):
        return self.updater.owner()

    def apply(self, plan):
        self.updater.apply(plan)
        self.applied.append(plan)

    def withdraw(self):
        self.updater.withdraw()


@pytest.mark.parametrize("kind", [TableUpdater, FlagdUpdater])
def test_a_restored_journal_with_newer_flags_in_service(place, kind, tmp_path):
    platform, clock = Served(kind(tmp_path / "served.json")), SimulatedClock(START)
    tuner = make(place.url)
    rounds = loop_of(tuner, platform, clock).run()
    for _ in range(3):
        next(rounds)
    place.back_up()  # between two rounds, while the loop runs
    for _ in range(2):
        next(rounds)
    kept = dict(tuner.history.plans)
    tuner.journal.close()
    newer = platform.updater.path.read_bytes()
    assert platform.owner()["round"] == 4

    place.restore()
    tuner = make(place.url)
    assert set(tuner.history.plans) == {0, 1, 2}
    assert {r: kept[r] for r in range(3)} == tuner.history.plans
    # A loop that comes late plans what it believes to be the present round: older than what is
    # served. It is not written over.
    clock.time = START + 3 * HOUR + 60
    (done,) = loop_of(tuner, platform, clock).run(1)
    assert done.round == 3
    assert not done.applied
    assert "round 4" in done.notes[-1]
    assert "older" in done.notes[-1]
    assert platform.updater.path.read_bytes() == newer
    # Round 4 was served already, by another plan: users keep the one they have.
    clock.time = START + 4 * HOUR + 60
    (done,) = loop_of(tuner, platform, clock).run(1)
    same = tuner.history.plans[4].candidates == kept[4].candidates
    assert done.applied == (same and tuner.history.plans[4].shares == kept[4].shares)
    # The next round is later than what is served.
    clock.time = START + 5 * HOUR + 60
    (done,) = loop_of(tuner, platform, clock).run(1)
    assert done.applied
    assert platform.owner()["round"] == 5
    tuner.journal.close()


def test_while_nobody_runs_the_control_is_served(tmp_path):
    place, clock = Sqlite(tmp_path), SimulatedClock(START)
    table = TableUpdater(tmp_path / "table.json")
    tuner = make(place.url)
    list(loop_of(tuner, Served(table), clock).run(2))
    tuner.journal.close()
    served = read_table(table.path)
    users = [f"user {i}" for i in range(200)]
    last = [assign(served, user, now=lambda: START + 3 * HOUR - 1) for user in users]
    assert {a.round for a in last} == {1}
    assert len({a.candidate for a in last}) > 1
    after = [assign(served, user, now=lambda: START + 3 * HOUR) for user in users]
    assert {(a.round, a.parameters["a"]) for a in after} == {(None, BASE)}


def test_a_take_over_serves_the_restored_journal_at_once(place, tmp_path):
    """The journal was lost before it had an epoch, and the flags belong to the lost one."""
    platform, clock = Served(TableUpdater(tmp_path / "table.json")), SimulatedClock(START)
    tuner = make(place.url)
    tuner.ask(0)
    place.back_up()
    rounds = loop_of(tuner, platform, clock).run()
    for _ in range(3):
        next(rounds)
    tuner.journal.close()
    place.restore()
    tuner = make(place.url)
    clock.time = START + 3 * HOUR
    (done,) = loop_of(tuner, platform, clock).run(1)
    assert not done.applied
    assert "hyperzero take-over" in done.notes[-1]
    tuner.study.begin_epoch("restored from the backup", "anna")
    loop = loop_of(tuner, platform, clock)
    terms = terms_of(loop._schedule, tuner.history.last_round, 2.0)
    platform.updater.on_behalf_of(terms).take_over()
    assert read_table(platform.updater.path)["round"] is None
    clock.time += HOUR
    (done,) = loop.run(1)
    assert done.applied
    assert platform.owner()["epoch"] == terms.epoch
    tuner.journal.close()


def test_a_copy_of_the_file_alone_is_a_backup_while_nothing_writes(tmp_path):
    place = Sqlite(tmp_path)
    tuner = make(place.url)
    list(loop_of(tuner, Platform(), SimulatedClock(START)).run(3))
    tuner.journal.close()
    shutil.copy(place.path, place.copy)
    again = make(f"sqlite:///{place.copy}")
    assert again.history.plans == tuner.history.plans
    again.journal.close()


# --- upgrade and downgrade ----------------------------------------------------------------------


def version_of(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT version FROM hyperzero_journal").fetchone()[0]


def test_an_upgrade_migrates_the_journal_and_leaves_the_backup(tmp_path):
    place = Sqlite(tmp_path)
    shutil.copy(FIXTURES / "journal_format_1.db", place.path)
    place.back_up()
    with contextlib.closing(sqlite3.connect(place.path)) as db:
        planned = {r for (r,) in db.execute("SELECT DISTINCT round FROM plans")}
    journal = hz.open_journal(place.url)
    entries = journal.read("feed")
    journal.close()
    assert {e.round for e in entries if isinstance(e, Planned)} == planned
    assert (version_of(place.path), version_of(place.copy)) == (FORMAT_VERSION, 1)


def test_a_downgrade_is_a_restore_with_newer_flags_in_service(tmp_path):
    """The earlier version refuses the later journal as it is, and goes on from the backup."""
    place, clock = Sqlite(tmp_path), SimulatedClock(START)
    platform = Served(TableUpdater(tmp_path / "table.json"))
    tuner = make(place.url)
    rounds = loop_of(tuner, platform, clock).run()
    for _ in range(2):
        next(rounds)
    place.back_up()  # step 2 of the upgrade
    next(rounds)
    tuner.journal.close()
    with contextlib.closing(sqlite3.connect(place.path)) as db:  # what a later version leaves
        db.execute("UPDATE hyperzero_journal SET version = 99, package = '9.0.0'")
        db.commit()
    later = place.path.read_bytes()
    with pytest.raises(hz.ForeignJournalError, match="use hyperzero-torch 9"):
        make(place.url)
    assert place.path.read_bytes() == later
    place.restore()
    tuner = make(place.url)
    assert set(tuner.history.plans) == {0, 1}
    clock.time = START + 3 * HOUR
    (done,) = loop_of(tuner, platform, clock).run(1)
    assert done.applied
    assert platform.owner()["round"] == 3
    tuner.journal.close()
