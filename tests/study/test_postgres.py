"""The journal on PostgreSQL; and on both databases several processes, secrets, hostile names.

A private server is started from the system's package; without it, what needs it is skipped.
"""

import json
import logging
import random
import re
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.journal_files import FIXTURES, killed_openings, shape
from support.postgres import PASSWORD, shared_server, why_not
from support.writers import FIRST, assert_one_appends_each_round, creators

import hyperzero_torch as hz
from hyperzero_torch.errors import (
    ForeignJournalError,
    HyperZeroError,
    JournalCorruptError,
    JournalError,
    MissingExtraError,
    StudyNotFoundError,
)
from hyperzero_torch.simulate.paper import PaperWorld
from hyperzero_torch.simulate.run import run
from hyperzero_torch.study.journal import (
    CandidateAdded,
    Configured,
    Decision,
    Planned,
    ReadingsReceived,
    StudyHeader,
    address,
    database,
    limits,
    links,
    open_journal,
    rows,
    schema,
)
from hyperzero_torch.study.journal.base import ConflictError
from hyperzero_torch.study.journal.keys import KeyRing
from hyperzero_torch.study.journal.schema import studies
from hyperzero_torch.study.journal.sql import SqlJournal
from hyperzero_torch.testing import JournalContract, example_entries

HEADER = StudyHeader("study", 5, {"objective": "views", "metrics": ["views", "likes"]})
SMALL = {"num_draws": 64, "num_samples": 128, "initial_candidates": 8, "max_arms": 12}


@pytest.fixture(scope="session")
def server():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    return shared_server()


@pytest.fixture
def url(server):
    """A place without tables."""
    return server.schema()


@pytest.fixture
def journal(url):
    """A journal with one study of ten entries."""
    opened = SqlJournal(url)
    opened.create(HEADER, example_entries())
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request, tmp_path):
    """A place without tables, on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    return request.getfixturevalue("server").schema()


@pytest.fixture(scope="module")
def world():
    return PaperWorld(seed=0, slots=100, draws_per_slot=20)


class TestPostgresJournal(JournalContract):
    @pytest.fixture(autouse=True)
    def _server(self, server):
        self.server, self.opened = server, []
        yield
        for journal in self.opened:
            journal.close()

    def make_journal(self, tmp_path):
        return self.open(self.server.schema())

    def reopen(self, journal):
        return self.open(journal.url)

    def open(self, url):
        self.opened.append(SqlJournal(url))
        return self.opened[-1]


# --- the same study on every journal ----------------------------------------------------------


def test_a_study_is_the_same_bit_for_bit_on_every_journal(url, world, tmp_path):
    def study(journal):
        tuner = hz.Tuner(world.problem, hz.TunerConfig(**SMALL), journal, "feed", seed=3)
        for _ in run(tuner, world, 9):
            pass
        plans = [tuner.ask(round_) for round_ in range(10)]
        state = tuner.state_dict()
        entries = tuner.journal.read("feed")
        tuner.journal.close()
        return plans, entries, state, tuner.recommend if journal is None else None

    memory, lite, postgres = map(study, (None, f"sqlite:///{tmp_path}/a.db", url))
    assert memory[0] == lite[0] == postgres[0]
    assert memory[1] == lite[1] == postgres[1]
    assert len({plan.shares for plan in memory[0]}) > 3
    assert sum(isinstance(entry, ReadingsReceived) for entry in memory[1]) >= 3
    for state in (lite[2], postgres[2]):
        assert json.dumps(state, default=lambda t: t.tolist()) == json.dumps(
            memory[2], default=lambda t: t.tolist()
        )
    again = hz.Tuner.resume(url, "feed", problem=world.problem)
    assert [again.ask(round_) for round_ in range(10)] == memory[0]
    again.journal.close()


def test_an_url_needs_no_driver(server, url):
    for scheme in ("postgresql://", "postgres://"):
        journal = open_journal(url.replace("postgresql+psycopg://", scheme))
        assert journal.studies() == []
        assert repr(journal).startswith("SqlJournal('postgresql+psycopg://tuner:***@127.0.0.1:")
        journal.close()


def test_what_is_not_there_is_not_made_where_none_is_wanted(url, world):
    with pytest.raises(StudyNotFoundError, match="no journal in postgres"):
        hz.Tuner.resume(url, problem=world.problem)
    assert shape(url) == {}


def test_the_database_of_another_application_is_left_as_it_is(server, url):
    server.execute("CREATE TABLE orders (a int)", url=url)
    before = shape(url)
    with pytest.raises(ForeignJournalError, match=r"not a journal of hyperzero.*orders"):
        SqlJournal(url)
    assert shape(url) == before


# --- several writers --------------------------------------------------------------------------


def test_processes_that_open_the_same_new_database_at_once(server):
    """Without a lock, tables would be made twice."""
    for _ in range(5):
        place = server.schema()
        winners = creators(partial(SqlJournal, place))
        journal = SqlJournal(place)
        assert [journal.header("study").seed] == winners
        assert journal.read("study") == [FIRST]
        journal.close()


def test_of_writers_that_append_at_once_exactly_one_wins(url):
    first = SqlJournal(url)
    first.create(HEADER, [FIRST])
    first.close()
    assert_one_appends_each_round(partial(SqlJournal, url))


def lock_study(connection):
    """As a writer does before it reads the last entry."""
    wanted = sa.select(studies).where(studies.c.study == "study")
    connection.execute(wanted.with_for_update())


def test_a_writer_that_waited_sees_what_was_written_meanwhile(journal, url):
    """It queues on the study's row, and is told of the conflict before it has written a thing."""
    second, waited = SqlJournal(url), []
    seen = []
    sa.event.listen(
        second.database.engine, "before_cursor_execute", lambda *call: seen.append(call[2])
    )

    def overtaken():
        started = time.monotonic()
        with pytest.raises(ConflictError, match=r"has entries after 10; nothing was written$"):
            second.append("study", [FIRST], after=10)
        waited.append(time.monotonic() - started)

    thread = threading.Thread(target=overtaken)
    with journal.database.transaction(write=True) as connection:
        lock_study(connection)
        thread.start()
        time.sleep(0.5)
        link = links.continued(connection, "study", 10, KeyRing(), "", False)
        rows.write(connection, HEADER, [Decision(9, "a", "b")], 10, link, KeyRing())
    thread.join()
    assert waited[0] > 0.4
    assert not any("INSERT" in statement for statement in seen)
    assert second.read("study", after=10) == [Decision(9, "a", "b")]
    second.close()


def test_studies_do_not_wait_for_each_other(journal, url):
    journal.create(StudyHeader("other", 0, {}), [FIRST])
    second = SqlJournal(url)
    with journal.database.transaction(write=True) as connection:
        lock_study(connection)
        started = time.monotonic()
        assert second.append("other", [FIRST], after=1) == 2
        assert second.read("study") == example_entries()
        assert time.monotonic() - started < 5
    second.close()


def test_a_writer_that_cannot_get_in_says_so_and_writes_nothing(journal, url, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    second = SqlJournal(url)
    with journal.database.transaction(write=True) as connection:
        lock_study(connection)
        with pytest.raises(JournalError, match="lock timeout") as caught:
            second.append("study", [FIRST], after=10)
        assert not isinstance(caught.value, ConflictError)
    assert second.read("study") == example_entries()
    assert second.append("study", [FIRST], after=10) == 11
    second.close()


def settings_of(url):
    journal = open_journal(url)
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    with journal.database.transaction() as connection:
        show = sa.select(*(sa.func.current_setting(name) for name in names))
        found = tuple(connection.execute(show).one())
    journal.close()
    return found


def test_every_connection_waits_with_a_limit_for_reads_too(url, monkeypatch):
    assert settings_of(url) == ("30s", "2min", "2min")
    assert url.endswith("options=-csearch_path%3D" + url.rpartition("%3D")[2])
    assert settings_of(f"{url}%20-cstatement_timeout%3D7s") == ("30s", "7s", "2min")
    monkeypatch.setitem(limits._POSTGRES, "statement_timeout", 300)
    journal = open_journal(url)
    begin = time.monotonic()
    with (
        pytest.raises(JournalError, match="statement timeout"),
        journal.database.transaction() as connection,
    ):
        connection.execute(sa.select(sa.func.pg_sleep(60)))
    assert time.monotonic() - begin < 20
    assert journal.studies() == []
    journal.close()


def test_a_reader_sees_one_moment(journal, url):
    """An append between two of its queries is seen by none of them."""
    reader, appended = SqlJournal(url), []

    def meanwhile(connection, cursor, statement, *_):
        if "FROM plans" in statement and not appended:
            received = ReadingsReceived((9,), (0,), (0,), (0,), (1.0,), (2.0,), (3.0,))
            appended.append(journal.append("study", [received, Decision(9, "a", "b")], after=10))

    sa.event.listen(reader.database.engine, "before_cursor_execute", meanwhile)
    assert reader.read("study") == example_entries()
    assert appended == [12]
    assert len(reader.read("study")) == 12
    reader.close()


def deliveries(world, plans, round_):
    due = defaultdict(list)
    for plan in plans[:round_]:
        for delivery in world.serve(plan):
            due[max(delivery.due, plan.round + 1)].append(delivery.readings)
    return due[round_]


def part(readings, me):
    """Two thirds of a message; what both have overlaps."""
    keep = [c % 3 != me for c in readings.candidate]
    names = ("round", "candidate", "metric", "count", "mean", "var", "revision")
    columns = {name: getattr(readings, name)[keep] for name in names}
    return hz.Readings.from_frame(columns) if any(keep) else None


LOOP_ROUNDS = 6


def loop(where, me, folder):
    """One of two loops on a study: it tells its part of the readings, and asks for every round."""
    world = PaperWorld(seed=0, slots=100, draws_per_slot=20)
    (folder / f"ready-{me}").touch()
    while len(list(folder.glob("ready-*"))) < 2:
        time.sleep(0.001)
    tuner = hz.Tuner(world.problem, hz.TunerConfig(**SMALL), where, "feed", seed=3)
    plans, news, mail = [], 0, defaultdict(list)
    for round_ in range(LOOP_ROUNDS + 24):  # the last deliveries are many rounds late
        for readings in mail.pop(round_, []):
            mine = part(readings, me)
            news += 0 if mine is None else tuner.tell(mine)
        if round_ < LOOP_ROUNDS:
            plans.append(tuner.ask(round_))
            for delivery in world.serve(plans[-1]):
                mail[max(delivery.due, round_ + 1)].append(delivery.readings)
    tuner.journal.close()
    assert not mail
    return [(p.round, p.candidate_ids, p.slots, p.shares) for p in plans], news


@pytest.fixture(scope="module")
def two_processes():
    """Of their own, and started once: to import torch takes each of them seconds."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        yield pool


def test_two_loops_at_once_make_one_plan_a_round_and_record_every_reading_once(
    both, world, tmp_path, two_processes
):
    futures = [two_processes.submit(loop, both, me, tmp_path) for me in (0, 1)]
    (plans, news), (others, more) = (future.result(timeout=120) for future in futures)
    assert plans == others
    tuner = hz.Tuner.resume(both, "feed", problem=world.problem)
    entries = tuner.journal.read("feed")
    assert [e.round for e in entries if isinstance(e, Planned)] == list(range(LOOP_ROUNDS))
    assert Counter(type(e) for e in entries)[Configured] == 1
    assert (
        len({e.candidate for e in entries if isinstance(e, CandidateAdded)})
        == tuner.history.num_candidates
    )
    recorded = Counter(
        key
        for e in entries
        if isinstance(e, ReadingsReceived)
        for key in zip(e.round, e.candidate, e.metric, e.revision)
    )
    expected = Counter(
        (int(r), int(c), int(m), 0)
        for round_ in range(LOOP_ROUNDS)
        for delivery in world.serve(tuner.ask(round_))
        for r, c, m in zip(
            delivery.readings.round, delivery.readings.candidate, delivery.readings.metric
        )
    )
    assert recorded == expected, "readings were lost or doubled"
    assert news + more == sum(expected.values())
    assert news > 0
    assert more > 0
    tuner.journal.close()


FORK = """
import os, sys
import sqlalchemy as sa
from hyperzero_torch.study.journal import Configured
from hyperzero_torch.study.journal.sql import SqlJournal

def backend():
    with journal.database.transaction() as connection:
        return connection.scalar(sa.text("SELECT pg_backend_pid()"))

journal = SqlJournal(sys.argv[1])
known, mine = len(journal.read("study")), backend()
child = os.fork()
if child == 0:
    journal.append("study", [Configured({"who": "child"})], after=known)
    other = backend() != mine
    journal.close()
    os._exit(0 if other else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child's connection"
assert backend() == mine, "the parent's connection"
journal.append("study", [Configured({"who": "parent"})], after=known + 1)
"""


def test_a_fork_does_not_speak_on_its_parents_connection(journal, url):
    done = subprocess.run([sys.executable, "-c", FORK, url], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    who = [entry.config["who"] for entry in journal.read("study", after=10)]
    assert who == ["child", "parent"]


# --- a server that goes away ------------------------------------------------------------------


def test_a_restart_between_two_calls_is_not_noticed(server, journal):
    for mode in ("fast", "immediate"):
        known = len(journal.read("study"))
        server.restart(mode)
        assert journal.append("study", [FIRST], after=known) == known + 1
        server.restart(mode)
        assert len(journal.read("study")) == known + 1


@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("when", ["SELECT max", "INSERT INTO plans", "INSERT INTO entries"])
def test_a_restart_within_an_append_leaves_nothing_half_written(server, journal, mode, when):
    done = []

    def restart(connection, cursor, statement, *_):
        if when in statement and not done:
            done.append(statement)
            server.restart(mode)

    sa.event.listen(journal.database.engine, "before_cursor_execute", restart)
    new = [CandidateAdded(2, 8, "proposal", (0.5, 2.0), {}), Planned(8, (0, 2), (0, 1), (0.5, 0.5))]
    with pytest.raises(JournalError, match=r"lost its connection.*call again") as caught:
        journal.append("study", new, after=10)
    assert not isinstance(caught.value, ConflictError)
    assert done
    assert_silent(caught.value)
    assert journal.read("study") == example_entries(), "the next call works"
    assert journal.append("study", new, after=10) == 12
    assert journal.read("study", after=10) == new


def test_a_server_that_is_down_is_an_error_until_it_is_up_again(server, journal):
    server.halt()
    try:
        for call in (
            lambda: journal.read("study"),
            lambda: journal.append("study", [FIRST], after=10),
            journal.studies,
        ):
            with pytest.raises(JournalError, match="cannot be used: connection failed") as caught:
                call()
            assert_silent(caught.value)
    finally:
        server.start()
    assert journal.append("study", [FIRST], after=10) == 11


def test_a_round_goes_on_after_a_restart_in_its_middle(server, url, world):
    """Told, restarted while it plans, asked again: the plan of a study that was left in peace."""

    def rounds(tuner, disturb):
        plans = []
        for round_ in range(4):
            for readings in deliveries(world, plans, round_):
                tuner.tell(readings)
            if disturb and round_ == 3:
                with pytest.raises(JournalError, match="lost its connection"):
                    disturb(tuner, round_)
            plans.append(tuner.ask(round_))
        return plans, tuner.journal.read("feed")

    def disturb(tuner, round_):
        armed = [True]

        def restart(connection, cursor, statement, *_):
            if armed and "INSERT INTO entries" in statement:
                armed.clear()
                server.restart("immediate")

        engine = tuner.journal.database.engine
        sa.event.listen(engine, "before_cursor_execute", restart)
        tuner.ask(round_)

    config = hz.TunerConfig(**SMALL)
    calm = rounds(hz.Tuner(world.problem, config, None, "feed", seed=3), None)
    tuner = hz.Tuner(world.problem, config, url, "feed", seed=3)
    assert rounds(tuner, disturb) == calm
    tuner.journal.close()


# --- damage, values ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM entries WHERE entry = 3",
        "DELETE FROM readings WHERE candidate = 1 AND revision = 1",
        "UPDATE readings SET mean = 'NaN' WHERE candidate = 1",
        "UPDATE readings SET mean = mean * (1 + 1e-15) WHERE entry = 5 AND candidate = 1",
        "UPDATE plans SET share = share + 1e-16 WHERE round = 0",
        "UPDATE candidates SET theta = '[1, null]'",
        "UPDATE candidates SET parameters = '[]'",
        "UPDATE entries SET details = 'null' WHERE kind = 'planned'",
        "UPDATE entries SET kind = 'other' WHERE entry = 2",
        "UPDATE studies SET seed = 6",
        "UPDATE studies SET problem = '3'",
    ],
)
def test_what_was_edited_is_refused(server, journal, url, loss):
    server.execute(loss, url=url)
    with pytest.raises(JournalCorruptError, match=r"from a backup|the unknown kind"):
        journal.read("study")


def test_a_lost_table_is_noticed(server, journal, url):
    server.execute("DROP TABLE metrics", url=url)
    with pytest.raises(ForeignJournalError, match=r"misses \['metrics'\]"):
        SqlJournal(url)


@pytest.mark.parametrize(
    "bad",
    [
        Decision(8, "a", "b", {"x": {1, 2}}),
        Decision(8, "a", "b", {"x": float("nan")}),
        Decision(2**63, "a", "b"),
        Decision(8, "a", "b\0c"),
        Decision(8, "a", "\ud800"),
    ],
)
def test_what_cannot_be_stored_is_refused_whole(journal, bad):
    new = [Planned(8, (0, 1), (0, 1), (0.5, 0.5)), bad, Decision(8, "after", "")]
    with pytest.raises(JournalError, match=r"cannot store an entry.*nothing was written"):
        journal.append("study", new, after=10)
    assert journal.read("study") == example_entries()


def test_whole_numbers_among_readings_are_stored_as_floats(both, tmp_path):
    """SQLite would keep them as they are, and an analyst's quotient would lose its fraction."""
    journal = SqlJournal(both)
    received = ReadingsReceived((0,), (0,), (0,), (0,), (3,), (1,), (2,))
    journal.create(HEADER, [FIRST, received])
    assert journal.read("study")[1] == received
    with journal.database.transaction() as connection:
        assert connection.scalar(sa.text("SELECT mean / count FROM readings")) == 1 / 3
    journal.close()


# --- hostile names ----------------------------------------------------------------------------

HOSTILE = [
    "'; DROP TABLE studies; --",
    "Robert'); DELETE FROM entries WHERE ('1'='1",
    '"; SELECT pg_sleep(10); --',
    "%(study)s %s :study $1 ? {0} \\",
    "\\'; \\x00",
    "x" * 10_000,
    "点击率🙂" * 1000,
    "\u202e\u0000",
    "a\0b",
    "\ud800",
    "",
    " ",
    "\r\n\t",
]


def stored_or_refused(journal, name):
    """Whether a study of this name was stored; where not, nothing has changed."""
    before = journal.studies()
    header = StudyHeader(name, 1, {"metrics": [name[:100]]})
    entries = [FIRST, Decision(0, "kind", "reason", {"name": 1})]
    try:
        journal.create(header, entries)
    except ConflictError:
        assert name in before
        return False
    except JournalError as error:
        refusal = str(error)
    else:
        assert journal.studies() == sorted([*before, name])
        assert journal.header(name) == header
        assert journal.append(name, [FIRST], after=2) == 3
        assert journal.read(name) == [*entries, FIRST]
        return True
    assert "nothing was written" in refusal
    assert len(refusal) < 2000
    assert journal.studies() == before
    for call in (journal.header, journal.read, lambda n: journal.append(n, [FIRST], after=0)):
        with pytest.raises(JournalError):
            call(name)
    return False


@pytest.fixture
def opened(both):
    """An empty journal on each database."""
    journal = SqlJournal(both)
    yield journal
    journal.close()


def test_hostile_names_are_stored_or_refused_cleanly(opened):
    noise = random.Random(0)
    incompressible = "".join(map(chr, (noise.randrange(0x100, 0xD000) for _ in range(10_000))))
    names = [*HOSTILE, incompressible]
    taken = {name for name in names if stored_or_refused(opened, name)}
    # SQLite takes every text that is one; PostgreSQL none with NUL, and no name without a limit.
    refused = {"\ud800"}
    if opened.url.drivername.startswith("postgresql"):
        refused |= {incompressible, "a\0b", "\u202e\u0000"}
    assert set(names) - taken == refused
    assert opened.studies() == sorted(taken)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(), max_size=50))
@example("\ud800")
@example("\0")
def test_any_name_is_stored_or_refused_cleanly(opened, name):
    stored_or_refused(opened, name)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["kind", "reason", "details", "trigger"]),
    st.text(st.characters(), max_size=40),
)
def test_any_text_within_entries_is_stored_or_refused_cleanly(opened, where, text):
    name = str(len(opened.studies()))
    values = {"kind": "a", "reason": "b", "details": {}} | {where: text}
    entry = Decision(0, values["kind"], values["reason"], {"x": text})
    if where == "trigger":
        entry = Planned(0, (0,), (0,), (1.0,), text, {text: text})
    try:
        opened.create(StudyHeader(name, 0, {}), [FIRST, entry])
    except JournalError as error:
        refusal = str(error)
    else:
        assert opened.read(name) == [FIRST, entry]
        return
    assert "nothing was written" in refusal
    assert name not in opened.studies()


def test_no_statement_holds_a_value(both):
    """Values travel beside the statements, whatever they are."""
    journal, statements = SqlJournal(both), []
    sa.event.listen(
        journal.database.engine,
        "before_cursor_execute",
        lambda c, cursor, statement, *_: statements.append(statement),
    )
    mark = "m4rk'; --"
    header = StudyHeader(mark, 1, {"metrics": [mark]})
    entries = [
        Configured({mark: mark}),
        CandidateAdded(0, 0, mark, (0.123456,), {mark: mark}),
        Planned(0, (0,), (0,), (0.123456,), mark, {mark: mark}),
        ReadingsReceived((0,), (0,), (0,), (0,), (1.0,), (0.123456,), (1.0,)),
        Decision(0, mark, mark, {mark: mark}),
    ]
    journal.create(header, entries)
    journal.append(mark, [Decision(0, mark, mark)], after=5)
    assert journal.header(mark) == header
    assert journal.read(mark)[:5] == entries
    journal.close()
    assert sum("INSERT" in s for s in statements) >= 8
    assert not [s for s in statements if "m4rk" in s or "0.123456" in s]


def test_statements_are_never_made_of_pieces():
    """No text of SQL in the package is put together from values."""
    made = re.compile(
        r"text\(\s*f[\"']|exec_driver_sql\(\s*f[\"']|\.execute\(\s*f[\"']|%\s*\(|\.format\("
    )
    for path in sorted(Path(address.__file__).parent.glob("*.py")):
        assert not made.search(path.read_text()), path.name


# --- secrets ----------------------------------------------------------------------------------


def assert_silent(error, *secrets):
    """Nothing of an error, its traceback or its causes' texts repeats the password."""
    texts = [str(error), repr(error), *traceback.format_exception(error)]
    for secret in secrets or (PASSWORD, sa.URL.create("x", "u", PASSWORD).render_as_string(False)):
        assert not [text for text in texts if secret in text]
    assert error.__suppress_context__ or error.__context__ is None


SECRET = "hunter2-Ünsäfe"


def failing_urls(server):
    quoted = "hunter2-%C3%9Cns%C3%A4fe"
    return [
        (server.url(password=SECRET), "password authentication failed"),
        (server.url(user="nobody", password=SECRET), "password authentication failed"),
        (f"postgresql://tuner:{quoted}@127.0.0.1:1/postgres", "refused"),
        (f"postgresql://tuner:{quoted}@nowhere.invalid/postgres", "cannot be used"),
        (f"postgresql://tuner:{quoted}@/postgres?host=/no/such/folder", "cannot be used"),
        (f"postgresql://tuner@127.0.0.1:1/postgres?password={quoted}", "refused"),
        (f"postgresql://127.0.0.1:1/postgres?sslpassword={quoted}&user=tuner", "refused"),
        (f"postgresql://tuner:{quoted}@127.0.0.1:1/postgres?nosuchoption=1", "cannot be used"),
        (f"postgresql+psycopg2://tuner:{quoted}@127.0.0.1/postgres", "is none of"),
        (f"mysql://tuner:{quoted}@127.0.0.1/postgres", "is none of"),
        (f"nosuch+thing://tuner:{quoted}@127.0.0.1/postgres", "is none of"),
        (f"postgresql://tuner:{SECRET}@x@127.0.0.1/postgres", "more than one '@'"),
        (f"postgresql://tuner:x@{SECRET}/y@127.0.0.1/postgres", "more than one '@'"),
        (f"postgresql://tuner:{quoted}@127.0.0.1:port/postgres", "not understood"),
        (f"postgresql://tuner:{SECRET}/postgres", "not understood"),
        (f"tuner:{SECRET}@127.0.0.1/postgres", "not understood"),
        (f"://tuner:{SECRET}@127.0.0.1", "not understood"),
    ]


def test_a_password_is_in_no_message_warning_or_log(server, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    for url, why in failing_urls(server):
        with pytest.raises(JournalError, match=why) as caught:
            open_journal(url)
        assert_silent(caught.value, SECRET, "hunter2", "%C3%9Cns")
    database_ = server.database()
    with pytest.raises(JournalError, match='database "nowhere" does not exist') as caught:
        open_journal(server.url("nowhere"))
    assert_silent(caught.value)
    logging.getLogger("sqlalchemy").setLevel(logging.DEBUG)
    try:
        journal = open_journal(server.url(database_))
        journal.create(HEADER, example_entries())
        assert journal.read("study") == example_entries()
        with pytest.raises(ConflictError) as caught:
            journal.append("study", [FIRST], after=3)
        assert_silent(caught.value)
        with pytest.raises(StudyNotFoundError) as caught:
            journal.read("other")
        assert_silent(caught.value)
        shown = [repr(journal), str(journal), repr(journal.url), str(journal.url)]
        shown += [repr(vars(journal)), repr(vars(journal.database))]
        journal.close()
    finally:
        logging.getLogger("sqlalchemy").setLevel(logging.NOTSET)
    assert "INSERT INTO entries" in caplog.text, "nothing was logged"
    for text in (*shown, caplog.text, *(str(w.message) for w in recwarn), server.log()):
        assert "hunter2" not in text
        assert PASSWORD not in text
        assert "s3cr3t" not in text
    rows = [
        server.execute(f"SELECT * FROM {t}", url=server.url(database_))
        for t in schema.tables.tables
    ]
    assert "s3cr3t" not in repr(rows)


def test_a_database_that_repeats_the_password_is_masked(server, url):
    """Whatever a server or driver says, quoted or not."""
    address_ = address.Address.of(server.url())
    quoted = sa.URL.create("x", "u", PASSWORD).render_as_string(False).split("u:")[1]
    message = f"user=tuner password={PASSWORD}\n  at {quoted}"
    assert "s3cr3t" not in address_.hide(message)
    assert address_.hide(message).startswith("user=tuner password=*** at ")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
@example("@")
@example("%")
@example(":/@?#[]")
def test_a_quoted_password_reaches_the_driver_and_nobody_else(password):
    from urllib.parse import quote

    secret = "s" + password  # not the empty user's, not a piece of the host
    url = f"postgresql://u:{quote(secret, safe='')}@h/d"
    parsed = address.Address.of(url)
    assert parsed.url.password == secret
    assert str(parsed) == "postgresql+psycopg://u:***@h/d"
    assert repr(parsed) == "Address('postgresql+psycopg://u:***@h/d')"


@given(
    st.sampled_from(["", "u:{}@h/d", "u:{}/d", "{}", "h/d?password={}", "u:{}@h:x/d", "u@{}@h/d"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=20),
    st.sampled_from(["postgresql://", "postgres://", "oracle://", "x://", "", "sql ite://"]),
)
def test_an_address_that_is_not_understood_repeats_no_password(form, noise, scheme):
    secret = f"Zq{noise}Zq"
    try:
        parsed = address.Address.of(scheme + form.format(secret))
    except JournalError as error:
        shown = str(error) + "".join(traceback.format_exception(error))
    else:
        # What stands for a host or a database is no secret.
        shown = repr(parsed) if secret not in (parsed.url.host, parsed.url.database) else ""
    if "@" in form or scheme:
        assert secret not in shown


def test_a_password_may_come_from_the_environment(server, monkeypatch):
    """So that it stands in no file of a study."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    place = server.schema()
    bare = f"postgresql://tuner@127.0.0.1:{server.port}/postgres?" + place.split("?")[1]
    journal = open_journal(bare)
    journal.create(HEADER, example_entries())
    assert journal.read("study") == example_entries()
    journal.close()
    monkeypatch.setenv("PGPASSWORD", SECRET)
    with pytest.raises(JournalError, match="password authentication failed") as caught:
        open_journal(bare)
    assert_silent(caught.value, SECRET)


def test_without_psycopg_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"needs psycopg.*hyperzero-torch\[postgres\]"):
        open_journal("postgresql://tuner:s3cret@127.0.0.1/db")
    assert issubclass(MissingExtraError, HyperZeroError)


# --- migrations -------------------------------------------------------------------------------

#: What formats 2 and 3 added, taken away again: a journal of format 1 as PostgreSQL held it.
TO_1 = [
    "DROP TABLE chains",
    "DROP TABLE links",
    "ALTER TABLE hyperzero_journal DROP COLUMN link",
    "DROP TABLE metrics",
    "DROP INDEX candidates_by_entry",
    "DROP INDEX plans_by_entry",
    "DROP INDEX readings_by_entry",
    "ALTER TABLE hyperzero_journal DROP COLUMN package",
    "ALTER TABLE hyperzero_journal DROP COLUMN at",
    "UPDATE hyperzero_journal SET version = 1",
]


@pytest.fixture
def old(server, url, tmp_path):
    """The study of the old SQLite journal, in a PostgreSQL journal of format 1."""
    (tmp_path / "old.db").write_bytes((FIXTURES / "journal_format_1.db").read_bytes())
    source, target = SqlJournal(f"sqlite:///{tmp_path}/old.db"), SqlJournal(url)
    target.create(source.header("feed"), source.read("feed"))
    source.close()
    target.close()
    new = shape(url)
    server.execute(*TO_1, url=url)
    return url, new, json.loads((FIXTURES / "journal_format_1.json").read_text())


def test_an_old_journal_is_migrated_and_leads_to_the_same_plan(server, old):
    url, new, written = old
    assert shape(url) != new
    world = PaperWorld(**written["world"])
    tuner = hz.Tuner.resume(url, "feed", problem=world.problem)
    assert shape(url) == new
    plan = tuner.ask()
    assert list(plan.candidate_ids) == written["plan"]["candidate_ids"]
    assert list(plan.slots) == written["plan"]["slots"]
    tuner.journal.close()
    names = server.execute("SELECT study, metric, name FROM metrics ORDER BY metric", url=url)
    assert names == [("feed", 0, "x1"), ("feed", 1, "x2")]


def test_a_migration_that_is_killed_anywhere_is_done_whole_or_not_at_all(server, old):
    url, new, written = old
    states = killed_openings(url)
    olds, news = states.count("old"), states.count("new")
    assert olds > 12
    assert states == ["old"] * olds + ["new"] * news
    assert shape(url) == new
    journal = SqlJournal(url)
    assert len(journal.read("feed")) == written["entries"]
    journal.close()


def test_many_that_open_an_old_journal_at_once_migrate_it_once(old):
    url, new, written = old
    barrier = threading.Barrier(4)

    def work(_):
        barrier.wait()
        journal = SqlJournal(url)
        try:
            return len(journal.read("feed"))
        finally:
            journal.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [written["entries"]] * 4
    assert shape(url) == new


def test_a_later_format_is_refused(server, journal, url):
    server.execute("UPDATE hyperzero_journal SET version = 99, package = '7.1.0'", url=url)
    with pytest.raises(ForeignJournalError, match=r"format 99.*use hyperzero-torch 7\.1\.0"):
        SqlJournal(url)
    with pytest.raises(JournalError, match=r"format 99 while it was open.*nothing was written"):
        journal.append("study", [FIRST], after=10)
    assert journal.read("study") == example_entries()


# --- for analysts -----------------------------------------------------------------------------


def example_queries():
    text = (Path(address.__file__).parent / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```sql\n(.*?)```", text, re.DOTALL)


def test_the_readme_queries_answer_what_they_say(both):
    journal = SqlJournal(both)
    header = StudyHeader("default", 0, {"metrics": ["views", "likes"]})
    other = StudyHeader("other", 0, {"metrics": ["views", "likes"]})
    entries = [
        FIRST,
        CandidateAdded(0, 0, "base", (0.5,), {"w": 0.5}),
        CandidateAdded(1, 0, "initial", (0.25,), {"w": 0.25}),
        Planned(0, (0, 1), (0, 10), (0.4, 0.6)),
        # Rounds 0 and 1; candidate 1 of round 0 is revised, likes of the control never arrive.
        ReadingsReceived(
            (0, 0, 0), (0, 1, 1), (0, 0, 1), (0, 0, 0), (9, 8, 8), (2.0, 9.0, 1.0), (1, 1, 1)
        ),
        CandidateAdded(2, 1, "proposal", (0.75,), {"w": 0.75}),
        Planned(1, (0, 2), (0, 3), (0.5, 0.5)),
        ReadingsReceived((0,), (1,), (0,), (2,), (7.0,), (3.0,), (1.0,)),
        ReadingsReceived((1, 1), (0, 2), (0, 0), (0, 0), (5.0, 5.0), (4.0, 3.0), (1.0, 1.0)),
        ReadingsReceived((1,), (2,), (1,), (0,), (0.0,), (0.0,), (0.0,)),
        Decision(1, "retired", "candidate 1 won nothing"),
    ]
    journal.create(header, entries)
    journal.create(other, [*entries[:-1], Decision(1, "retired", "not this one")])
    with journal.database.transaction() as connection:
        traffic, deltas, decisions = (
            [tuple(row) for row in connection.exec_driver_sql(query)] for query in example_queries()
        )
        at = connection.scalar(
            sa.text("SELECT at FROM entries WHERE entry = 11 AND study = 'default'")
        )
    journal.close()
    assert traffic == [
        (0, 0, "base", 0, 0.4),
        (0, 1, "initial", 10, 0.6),
        (1, 0, "base", 0, 0.5),
        (1, 2, "proposal", 3, 0.5),
    ]
    assert deltas == [(0, 1, "views", 2, 7.0, 0.5), (1, 2, "views", 0, 5.0, -0.25)]
    assert decisions == [(1, at, "retired", "candidate 1 won nothing")]


def test_the_readme_deltas_are_those_of_the_tuner(both, world):
    """Latest revisions, divided as the package divides them."""
    tuner = hz.Tuner(world.problem, hz.TunerConfig(**SMALL), both, seed=3)
    for _ in run(tuner, world, 6):
        pass
    with tuner.journal.database.transaction() as connection:
        deltas = list(connection.exec_driver_sql(example_queries()[1]))
    table = tuner.history.tables
    assert len(deltas) > 10
    for round_, candidate, metric, revision, users, delta in deltas:
        known = table[round_]
        arm, column = known.row[candidate], world.problem.metrics.index(metric)
        assert revision == known.revision[arm, column]
        assert users == known.count[arm, column]
        assert delta == known.mean[arm, column] / known.mean[0, column] - 1
    tuner.journal.close()


def test_the_readme_lists_every_table_and_column():
    text = (Path(address.__file__).parent / "README.md").read_text(encoding="utf-8")
    for table in schema.tables.sorted_tables:
        (line,) = [row for row in text.splitlines() if row.startswith(f"| `{table.name}` |")]
        for column in table.columns:
            assert column.name == "study" or f"`{column.name}`" in line, (table.name, column.name)
    assert f"format is {schema.FORMAT_VERSION}." in text
