"""Journals of earlier formats open, keep every entry, and lead to the plan that they led to."""

import json
import shutil
import sqlite3
from hashlib import sha256
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.journal_files import FIXTURES, killed_openings, shape

import hyperzero_torch as hz
from hyperzero_torch.errors import ForeignJournalError, JournalError
from hyperzero_torch.simulate.paper import PaperWorld
from hyperzero_torch.study.journal import Configured, StudyHeader, migrate, schema
from hyperzero_torch.study.journal.base import kind_of
from hyperzero_torch.study.journal.sql import SqlJournal

FORMATS = [1, 2]  # one file of each earlier format, written by the code of its time


@pytest.fixture(params=FORMATS)
def old(request, tmp_path):
    """A copy of an old journal, and what its own code said about it."""
    path = tmp_path / "old.db"
    shutil.copy(FIXTURES / f"journal_format_{request.param}.db", path)
    written = json.loads((FIXTURES / f"journal_format_{request.param}.json").read_text())
    return path, written | {"format": request.param}


def url(path):
    return f"sqlite:///{path}"


def execute(path, *statements):
    with sqlite3.connect(path) as connection:
        results = [connection.execute(statement).fetchall() for statement in statements]
    connection.close()
    return results[-1]


def dump(path):
    """All of a SQLite file as text."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_there_is_a_journal_of_every_earlier_format():
    assert list(range(1, schema.FORMAT_VERSION)) == FORMATS
    assert len(migrate._STEPS) == schema.FORMAT_VERSION - 1


def test_the_fixture_is_of_its_format(old):
    path, written = old
    assert execute(path, "SELECT version FROM hyperzero_journal") == [(written["format"],)]
    assert written["kinds"].keys() == {"Configured", "Born", "Planned", "Received", "Decided"}
    assert min(written["kinds"].values()) >= 1, "a kind of entry is missing"
    assert execute(path, "SELECT max(revision) FROM readings") == [(1,)]


def test_an_old_journal_keeps_every_entry(old):
    path, written = old
    rows = {name: execute(path, f"SELECT * FROM {name}") for name in ("entries", "readings")}
    journal = SqlJournal(url(path))
    entries = journal.read("feed")
    text = json.dumps([[kind_of(e).capitalize(), vars(e)] for e in entries], sort_keys=True)
    assert len(entries) == written["entries"]
    assert sha256(text.encode()).hexdigest() == written["entries_sha256"]
    assert journal.header("feed").seed == written["seed"]
    journal.close()
    for name, before in rows.items():
        assert execute(path, f"SELECT * FROM {name}") == before


def test_an_old_journal_leads_to_the_same_plan(old):
    """The plan was made by the code that wrote the file.

    Parameters may differ in the last digits: a proposal is climbed to, on whatever machine.
    """
    path, written = old
    world = PaperWorld(**written["world"])
    tuner = hz.Tuner.resume(url(path), "feed", problem=world.problem)
    plan, expected = tuner.ask(), written["plan"]
    assert plan.round == expected["round"]
    assert list(plan.candidate_ids) == expected["candidate_ids"]
    assert list(plan.slots) == expected["slots"]
    assert list(plan.shares) == pytest.approx(expected["shares"], rel=1e-12)
    for got, want in zip(plan.parameters, expected["parameters"], strict=True):
        assert dict(got) == pytest.approx(want, abs=1e-6)
    # And it goes on from there.
    tuner.tell(next(iter(world.serve(plan))).readings)
    assert tuner.ask().round == plan.round + 1
    tuner.journal.close()


def test_a_migrated_journal_is_as_a_new_one(old, tmp_path):
    path, _ = old
    SqlJournal(url(path)).close()
    SqlJournal(url(tmp_path / "new.db")).close()
    assert shape(url(path)) == shape(url(tmp_path / "new.db"))
    assert execute(path, "SELECT metric, name FROM metrics WHERE study = 'feed'") == [
        (0, "x1"), (1, "x2")
    ]  # fmt: skip
    ((version, package, at),) = execute(path, "SELECT version, package, at FROM hyperzero_journal")
    assert (version, package) == (schema.FORMAT_VERSION, hz.__version__)
    assert at.endswith("+00:00")
    before = path.read_bytes()
    SqlJournal(url(path)).close()
    assert path.read_bytes() == before, "migrated twice"


def test_what_is_new_in_a_study_is_found_by_an_index(old):
    """Or else each round would take as long as all before it together."""
    path, _ = old
    journal = SqlJournal(url(path))
    seen = []
    engine = journal.database.engine
    sa.event.listen(engine, "before_cursor_execute", lambda *call: seen.append(call[2:4]))
    journal.read("feed", after=20)
    journal.close()
    by_table = {"candidates": 0, "plans": 0, "readings": 0, "entries": 0, "decisions": 0}
    connection = sqlite3.connect(path)
    for statement, values in seen:
        if statement.startswith("SELECT") and "entry >" in statement:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            for table in by_table:
                by_table[table] += any(
                    f"SEARCH {table} USING INDEX" in row[3] and "entry>?" in row[3] for row in plan
                )
    connection.close()
    assert by_table == dict.fromkeys(by_table, 1)


def test_a_study_whose_problem_is_damaged_does_not_keep_the_others_from_being_read(old):
    path, _ = old
    for name, problem in [("a", "{"), ("b", "[" * 5000), ("c", "3"), ("d", '{"metrics": [1]}')]:
        execute(path, f"INSERT INTO studies VALUES ('{name}', 0, '{problem}')")
    journal = SqlJournal(url(path))
    assert len(journal.read("feed")) > 10
    for name in "abc":
        with pytest.raises(JournalError):
            journal.header(name)
    journal.close()
    assert execute(path, "SELECT DISTINCT study FROM metrics") == [("feed",)]


def test_names_of_metrics_are_there_for_queries(tmp_path):
    journal = SqlJournal(url(tmp_path / "a.db"))
    first = [Configured({})]
    problems = {"a": {"metrics": ["views", "O'Brien; --"]}, "b": {}, "c": {"metrics": "views"}}
    for name, problem in problems.items():
        journal.create(StudyHeader(name, 0, problem), first)
    journal.close()
    assert execute(tmp_path / "a.db", "SELECT * FROM metrics ORDER BY metric") == [
        ("a", 0, "views"), ("a", 1, "O'Brien; --")
    ]  # fmt: skip


# --- later formats ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "advice"),
    [
        ("'7.1.0'", r"format 99.*use hyperzero-torch 7\.1\.0 or newer: pip install"),
        ("NULL", r"format 99.*use the version of hyperzero-torch that wrote it"),
    ],
)
def test_a_later_format_is_refused_and_says_which_package_reads_it(tmp_path, package, advice):
    path = tmp_path / "later.db"
    SqlJournal(url(path)).close()
    execute(path, f"UPDATE hyperzero_journal SET version = 99, package = {package}")
    before = path.read_bytes()
    with pytest.raises(ForeignJournalError, match=advice):
        SqlJournal(url(path))
    assert path.read_bytes() == before


def test_a_later_format_without_a_package_is_refused_too(old):
    path, written = old
    execute(path, "UPDATE hyperzero_journal SET version = 99")
    advice = "that wrote it" if written["format"] == 1 else "or newer"
    with pytest.raises(ForeignJournalError, match=advice):
        SqlJournal(url(path))


def test_a_journal_that_is_migrated_while_it_is_open_is_not_written_to(tmp_path):
    """An older process that still runs must not write rows that the new format would not have."""
    path = tmp_path / "a.db"
    journal = SqlJournal(url(path))
    journal.create(StudyHeader("feed", 0, {}), [Configured({})])
    execute(path, "UPDATE hyperzero_journal SET version = 4, package = '9.9'")
    for write in (
        lambda: journal.append("feed", [Configured({})], after=1),
        lambda: journal.create(StudyHeader("other", 0, {}), [Configured({})]),
    ):
        with pytest.raises(JournalError, match=r"format 4 while it was open.*nothing was written"):
            write()
    assert journal.studies() == ["feed"]
    assert len(journal.read("feed")) == 1
    journal.close()


# --- all or nothing ---------------------------------------------------------------------------


def test_a_migration_that_fails_changes_nothing(old, monkeypatch):
    path, _ = old
    before = dump(path)

    def fails(connection, ring):
        connection.execute(sa.text("DELETE FROM readings"))
        raise RuntimeError("a step with a mistake")

    monkeypatch.setattr(migrate, "_STEPS", (*migrate._STEPS, fails))
    monkeypatch.setattr(migrate, "FORMAT_VERSION", 4)
    with pytest.raises(RuntimeError, match="a mistake"):
        SqlJournal(url(path))
    assert dump(path) == before


def test_a_migration_that_is_killed_anywhere_is_done_whole_or_not_at_all(old):
    path, written = old
    states = killed_openings(url(path))
    olds, news = states.count("old"), states.count("new")
    assert olds > 12
    assert states == ["old"] * olds + ["new"] * news
    journal = SqlJournal(url(path))
    assert len(journal.read("feed")) == written["entries"]
    journal.close()
    assert not Path(f"{path}-journal").exists()
