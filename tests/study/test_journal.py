"""``journal/`` and ``testing.py``: what was written is what is read, or an error says why not."""

import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from functools import partial

import pytest
import sqlalchemy as sa
from support.writers import FIRST, assert_one_appends_each_round, creators

import hyperzero_torch as hz
from hyperzero_torch.errors import (
    ForeignJournalError,
    HyperZeroError,
    JournalCorruptError,
    JournalError,
    StudyNotFoundError,
)
from hyperzero_torch.study.journal import (
    CandidateAdded,
    Configured,
    Decision,
    Journal,
    MemoryJournal,
    Planned,
    ReadingsReceived,
    StudyHeader,
    database,
    open_journal,
    rows,
    schema,
)
from hyperzero_torch.study.journal.base import ConflictError, flaw
from hyperzero_torch.study.journal.sql import SqlJournal
from hyperzero_torch.testing import JournalContract, example_entries, random_entries

HEADER = StudyHeader("study", 5, {"objective": "views"})


class TestMemoryJournal(JournalContract):
    def make_journal(self, tmp_path):
        return MemoryJournal()


class TestSqlJournal(JournalContract):
    def make_journal(self, tmp_path):
        return SqlJournal(f"sqlite:///{tmp_path}/journal.db")

    def reopen(self, journal):
        return SqlJournal(journal.url)


class TestSqlJournalInMemory(JournalContract):
    def make_journal(self, tmp_path):
        return SqlJournal("sqlite://")


# --- the suite itself: it notices journals that lie -------------------------------------------


class _Forgetful(MemoryJournal):
    def append(self, study, entries, after):
        return super().append(study, entries[:2], after) and after + len(entries)


class _Overtaking(MemoryJournal):
    def append(self, study, entries, after):
        return super().append(study, entries, after=len(self.read(study)))


class _Rounding(MemoryJournal):
    def read(self, study, after=0):
        def through_float32(entry):
            if not isinstance(entry, ReadingsReceived):
                return entry
            mean = tuple(struct.unpack("f", struct.pack("f", m))[0] for m in entry.mean)
            return ReadingsReceived(**(vars(entry) | {"mean": mean}))

        return [through_float32(entry) for entry in super().read(study, after)]


class _Unsigned(MemoryJournal):
    def read(self, study, after=0):
        return [
            CandidateAdded(**(vars(e) | {"theta": tuple(v + 0.0 for v in e.theta)}))
            if isinstance(e, CandidateAdded)
            else e
            for e in super().read(study, after)
        ]


class _Leaking(MemoryJournal):
    def read(self, study, after=0):
        self.header(study)
        every = [MemoryJournal.read(self, name) for name in self.studies()]
        return [e for log in every for e in log][after:]


class _Halves(MemoryJournal):
    def append(self, study, entries, after):
        for i, entry in enumerate(entries):
            if isinstance(entry, CandidateAdded) and entry in self.read(study):
                raise JournalError("twice")
            super().append(study, [entry], after + i)
        return after + len(entries)


class _Sharing(MemoryJournal):
    def __init__(self):
        super().__init__()
        self.given = {}

    def read(self, study, after=0):
        if after:
            return super().read(study, after)
        return self.given.setdefault(study, super().read(study))


class _Replacing(MemoryJournal):
    def create(self, header, entries):
        if header.study in self.studies():
            self.__init__()  # forgets all that it held
        super().create(header, entries)


@pytest.mark.parametrize(
    ("liar", "law"),
    [
        (_Forgetful, "every_kind_of_entry_comes_back_equal_and_in_order"),
        (_Overtaking, "append_after_a_wrong_number_writes_nothing"),
        (_Rounding, "every_kind_of_entry_comes_back_equal_and_in_order"),
        (_Unsigned, "numbers_come_back_bit_for_bit"),
        (_Leaking, "studies_do_not_see_each_other"),
        (_Halves, "an_append_is_all_or_nothing"),
        (_Sharing, "lists_are_not_shared_with_the_caller"),
        (_Replacing, "create_twice_is_a_conflict"),
    ],
)
def test_the_contract_catches_a_journal_that_lies(tmp_path, liar, law):
    contract = JournalContract()
    contract.make_journal = lambda tmp_path: liar()
    with pytest.raises(AssertionError, match=r"."):
        getattr(contract, f"test_{law}")(tmp_path)


def test_the_contract_skips_what_needs_persistence(tmp_path):
    with pytest.raises(NotImplementedError):
        JournalContract().make_journal(tmp_path)
    contract = TestMemoryJournal()
    assert contract.reopen(MemoryJournal()) is None


# --- opening ----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


def open_sql(path):
    return SqlJournal(f"sqlite:///{path}")


def written(path, entries=None):
    """A journal file with one study, closed."""
    journal = open_sql(path)
    journal.create(HEADER, example_entries() if entries is None else entries)
    journal.close()
    return path


def execute(path, *statements):
    with sqlite3.connect(path) as connection:
        results = [connection.execute(statement).fetchall() for statement in statements]
    connection.close()
    return results[-1]


def test_open_journal_takes_a_url_a_journal_or_nothing(path):
    assert isinstance(open_journal(None), MemoryJournal)
    mine = MemoryJournal()
    assert open_journal(mine) is mine
    assert isinstance(mine, Journal)
    opened = open_journal(f"sqlite:///{path}")
    assert isinstance(opened, SqlJournal)
    assert isinstance(opened, Journal)
    assert repr(opened) == f"SqlJournal('sqlite:///{path}')"
    assert repr(mine) == "MemoryJournal([])"


@pytest.mark.parametrize("wrong", [5, 1.5, ["sqlite://"], object(), b"sqlite://"])
def test_open_journal_refuses_what_is_no_journal(wrong):
    with pytest.raises(JournalError, match=f"got {type(wrong).__name__}"):
        open_journal(wrong)


def test_a_path_is_no_url(path):
    with pytest.raises(JournalError, match="its URL such as"):
        open_journal(path)


@pytest.mark.parametrize(
    "url", ["", "study.db", "sqlite", "nosuchdatabase:///x", "://", "sqlite:///a:b@c:d/e:f:g"]
)
def test_a_bad_url_is_not_understood(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JournalError):
        open_journal(url)
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_in_no_message():
    with pytest.raises(JournalError, match="understood") as caught:
        open_journal("nosuchdatabase://user:s3cret@host/db")
    assert "s3cret" not in str(caught.value)
    try:
        open_journal("postgresql+psycopg://user:s3cret@127.0.0.1:1/db")
    except (JournalError, hz.MissingExtraError) as error:  # nobody listens, or no driver
        assert "s3cret" not in str(error)  # noqa: PT017


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(JournalError, match=r"nowhere.*does not exist; create it first"):
        open_sql(tmp_path / "nowhere" / "journal.db")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_journal(tmp_path):
    with pytest.raises(JournalError, match="cannot be used"):
        open_sql(tmp_path)


FOREIGN = {
    "text": b"round,candidate,metric\n" + b"1,2,views\n" * 500,
    "short": b"hello",
    "two bytes": b"\n\n",
    "random": random.Random(1).randbytes(10_000),
    "zeros": bytes(8192),
    "header only": b"SQLite format 3\0",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused_and_left_as_it_is(path, kind):
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(JournalError):
        open_sql(path)
    assert path.read_bytes() == FOREIGN[kind]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("tables", [("orders",), ("studies", "entries"), ("hyperzero_journal",)])
def test_the_database_of_another_application_is_left_as_it_is(path, tables):
    for table in tables:
        execute(path, f"CREATE TABLE {table} (a)", f"INSERT INTO {table} VALUES (1)")
    before = path.read_bytes()
    with pytest.raises(ForeignJournalError, match=f"not a journal of hyperzero.*{tables[0]}"):
        open_sql(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE hyperzero_journal SET version = 4",
        "UPDATE hyperzero_journal SET version = 0",
        "UPDATE hyperzero_journal SET version = -1",
        "DELETE FROM hyperzero_journal",
    ],
)
def test_an_unknown_format_is_refused_and_left_as_it_is(path, change):
    execute(written(path), change)
    before = path.read_bytes()
    with pytest.raises(ForeignJournalError, match=r"format .*reads formats 1 to 3"):
        open_sql(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_file_is_a_new_journal(path, content):
    """SQLite takes a file of one byte for an empty one as well."""
    path.write_bytes(content)
    journal = open_sql(path)
    assert journal.studies() == []
    journal.create(HEADER, [FIRST])
    assert open_sql(path).read("study") == [FIRST]


def test_a_journal_is_made_whole_or_not_at_all(path, monkeypatch):
    def killed(connection):
        schema.studies.create(connection)
        schema.entries.create(connection)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schema.tables, "create_all", killed)
        with pytest.raises(KeyboardInterrupt):
            open_sql(path)
    assert execute(path, "SELECT name FROM sqlite_master") == []
    assert open_sql(path).studies() == []


# --- damage -----------------------------------------------------------------------------------


def opened(path):
    """All that can be read, or the JournalError that says why not; no other error passes."""
    journal = None
    try:
        journal = open_sql(path)
        return {name: (journal.header(name), journal.read(name)) for name in journal.studies()}
    except JournalError as error:
        return error
    finally:
        if journal is not None:
            journal.close()


def test_a_truncated_journal_is_refused(path, tmp_path):
    whole = written(path).read_bytes()
    cut = tmp_path / "cut.db"
    sizes = {2, 15, 16, 99, 100, 511, 512, 513, len(whole) - 1}
    sizes |= set(range(4096, len(whole), 4096)) | {n + 7 for n in range(0, len(whole), 8192)}
    for size in sorted(sizes):
        cut.write_bytes(whole[:size])
        assert isinstance(opened(cut), JournalError), size
    cut.write_bytes(whole)
    assert opened(cut) == {"study": (HEADER, example_entries())}


def test_a_flipped_bit_is_noticed_or_changes_nothing(path, tmp_path):
    """SQLite keeps no checksums: to it, a flipped bit within a number is another number, and one in
    an index leads to another row. The digest of each entry notices what SQLite cannot.

    One loss remains silent, as for any log without an end mark: the last entries, with all their
    rows, hidden by a flip in a page's count of cells; and so does the name of a whole study.
    """
    entries = example_entries()
    whole = written(path, entries).read_bytes()
    damaged = tmp_path / "damaged.db"
    generator = random.Random(0)
    noticed = same = digests = 0
    prefixes = [{"study": (HEADER, entries[:n])} for n in range(1, len(entries) + 1)]
    used = [i for i in range(len(whole)) if whole[i]]  # zeros are mostly unused space
    for i in range(400):
        at = generator.choice(used) if i % 4 else generator.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << generator.randrange(8)
        damaged.write_bytes(flipped)
        result = opened(damaged)
        if isinstance(result, JournalError):
            noticed += 1
            digests += "not those that were written" in str(result)
        else:
            assert result in [*prefixes, {}], at
            same += result == prefixes[-1]
    assert noticed > 50, "the flips missed the structure"
    assert digests > 10, "the flips missed the numbers"
    assert same > 50, "the flips missed the unused space"
    assert noticed + same >= 390


def test_random_garbage_in_the_middle_raises_only_our_errors(path, tmp_path):
    whole = written(path).read_bytes()
    damaged = tmp_path / "damaged.db"
    generator = random.Random(1)
    for _ in range(60):
        garbled = bytearray(whole)
        size = generator.choice([2, 8, 64, 512, 4096])
        at = generator.randrange(len(whole) - size)
        garbled[at : at + size] = generator.randbytes(size)
        damaged.write_bytes(garbled)
        result = opened(damaged)
        assert isinstance(result, JournalError) or result in (
            {}, {"study": (HEADER, example_entries())}
        )  # fmt: skip


ENTRY = "WHERE study = 'study' AND entry ="


@pytest.mark.parametrize(
    "loss",
    [
        f"DELETE FROM entries {ENTRY} 3",
        f"DELETE FROM entries {ENTRY} 1",
        f"DELETE FROM entries {ENTRY} 8",
        "DELETE FROM entries",
        "DELETE FROM entries WHERE entry > 4",
        "UPDATE entries SET entry = entry + 1 WHERE entry = 10",
        "DELETE FROM readings",
        f"DELETE FROM readings {ENTRY} 5 AND candidate = 1",
        f"DELETE FROM readings {ENTRY} 9 AND round = 7",
        "DELETE FROM plans",
        f"DELETE FROM plans {ENTRY} 4 AND candidate = 1",
        f"DELETE FROM plans {ENTRY} 7 AND candidate = 0",
        f"DELETE FROM candidates {ENTRY} 2",
        f"DELETE FROM decisions {ENTRY} 10",
        "INSERT INTO decisions SELECT study, 99, round, kind, reason, details FROM decisions",
        f"UPDATE readings SET entry = 5 {ENTRY} 8",
        f"UPDATE entries SET kind = 'planned' {ENTRY} 5",
        f"UPDATE entries SET kind = 'brn' {ENTRY} 2",
        f"UPDATE entries SET kind = x'ff' {ENTRY} 2",
        f"UPDATE entries SET details = 'not JSON' {ENTRY} 1",
        f"UPDATE entries SET details = '[1]' {ENTRY} 1",
        f"UPDATE entries SET details = '3' {ENTRY} 4",
        f"UPDATE entries SET details = '{{}}' {ENTRY} 5",
        f"UPDATE entries SET details = 12 {ENTRY} 1",
        f"UPDATE entries SET details = x'c328' {ENTRY} 1",
        f"UPDATE entries SET entry = 'three' {ENTRY} 3",
        "UPDATE candidates SET theta = '[1, null]'",
        "UPDATE candidates SET theta = '\"ab\"'",
        "UPDATE candidates SET theta = '[1, NaN]'",
        "UPDATE candidates SET parameters = '[]'",
        "UPDATE candidates SET candidate = 'x' WHERE candidate = 1",
        "UPDATE plans SET share = 'half' WHERE candidate = 1",
        "UPDATE plans SET slots = 1.5 WHERE candidate = 1",
        "UPDATE plans SET entry = 'x'",
        "UPDATE readings SET mean = 'abc' WHERE candidate = 1",
        "UPDATE readings SET var = x'00' WHERE candidate = 1",
        "UPDATE readings SET mean = 9e999 WHERE candidate = 1",
        "UPDATE readings SET metric = 0.5 WHERE candidate = 1",
        "UPDATE readings SET mean = mean * (1 + 1e-15) WHERE entry = 5 AND candidate = 1",
        "UPDATE readings SET mean = -mean WHERE entry = 9 AND candidate = 0",
        "UPDATE readings SET candidate = 3 WHERE candidate = 1",
        "UPDATE plans SET share = share + 1e-16 WHERE round = 0",
        "UPDATE plans SET slots = 11 WHERE candidate = 1 AND round = 0",
        "UPDATE candidates SET theta = '[0.3333333333333334, 1.0]' WHERE candidate = 1",
        "UPDATE entries SET details = '{\"num_draws\": 21}' WHERE entry = 6",
        "UPDATE decisions SET reason = 'the fit failed.'",
        "UPDATE studies SET seed = 6",
        'UPDATE studies SET problem = \'{"objective": "likes"}\'',
        "UPDATE entries SET digest = '' WHERE entry = 1",
        "UPDATE decisions SET round = 'x'",
        "UPDATE studies SET problem = '3'",
        "UPDATE studies SET problem = '{'",
        "UPDATE studies SET seed = 'x'",
    ],
)
def test_lost_rows_and_impossible_values_are_corrupt(path, loss):
    execute(written(path), loss)
    assert isinstance(opened(path), JournalCorruptError)


@pytest.mark.parametrize("table", list(schema.tables.tables))
def test_a_lost_table_is_noticed(path, table):
    execute(written(path), f"DROP TABLE {table}")
    error = opened(path)
    assert isinstance(error, ForeignJournalError)
    assert table in str(error)


def test_losing_the_last_entry_is_noticed_by_its_link(path):
    execute(written(path), "DELETE FROM entries WHERE entry = 10", "DELETE FROM decisions")
    assert isinstance(opened(path), JournalCorruptError)


def test_losing_the_last_entry_with_its_link_is_a_shorter_study(path):
    """Such a journal is a prefix, which is a study as well: only a head noted elsewhere tells."""
    journal = open_sql(written(path))
    head = journal.verify("study").head
    journal.close()
    execute(
        path,
        "DELETE FROM entries WHERE entry = 10",
        "DELETE FROM decisions",
        "DELETE FROM links WHERE entry = 10",
    )
    assert opened(path) == {"study": (HEADER, example_entries()[:-1])}
    journal = open_sql(path)
    assert journal.verify("study").ok
    (fault,) = journal.verify("study", head).faults
    assert fault.entry == 10
    assert "entries are missing at the end" in fault.what


# --- several writers --------------------------------------------------------------------------


def test_threads_that_open_the_same_new_file_at_once(tmp_path):
    for i in range(10):
        winners = creators(partial(open_sql, tmp_path / f"{i}.db"))
        journal = open_sql(tmp_path / f"{i}.db")
        assert len(winners) == 1
        assert journal.header("study").seed == winners[0]
        assert journal.read("study") == [FIRST]


def test_of_threads_that_append_at_once_exactly_one_wins(path):
    open_sql(path).create(HEADER, [FIRST])
    assert_one_appends_each_round(partial(open_sql, path))


WRITER = """
import sys, time
from pathlib import Path
from hyperzero_torch.study.journal import Configured, Decision, StudyHeader
from hyperzero_torch.study.journal.base import ConflictError
from hyperzero_torch.study.journal.sql import SqlJournal
folder, me, num = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
(folder / f"ready-{me}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.001)
journal = SqlJournal(f"sqlite:///{folder}/journal.db")
try:
    journal.create(StudyHeader("study", 0, {}), [Configured({})])
except ConflictError:
    pass
done = lost = 0
while done < num:
    known = len(journal.read("study"))
    try:
        journal.append("study", [Decision(done, me, ""), Decision(done, me, "b")], after=known)
        done += 1
    except ConflictError:
        lost += 1
print(done, lost)
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    num = 15
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, me, str(num)], stdout=subprocess.PIPE, text=True)
        for me in ("a", "b")
    ]
    outputs = [writer.communicate(timeout=120)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    entries = open_sql(tmp_path / "journal.db").read("study")[1:]
    assert len(entries) == 4 * num
    for me in ("a", "b"):
        mine = [(e.round, e.reason) for e in entries if e.kind == me]
        assert mine == [(i, reason) for i in range(num) for reason in ("", "b")]
    assert all(a.kind == b.kind for a, b in zip(entries[::2], entries[1::2]))
    assert [int(done) for done, _ in outputs] == [num, num]


def test_a_reader_sees_nothing_of_an_unfinished_append(path):
    written(path)
    digest = rows.digest(HEADER, 11, Decision(0, "a", "b"))
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO decisions VALUES ('study', 11, 0, 'a', 'b', '{}')")
    writer.execute(
        "INSERT INTO entries VALUES ('study', 11, 'decided', 0, 'now', '{}', ?)", [digest]
    )
    link = f"sha256:{'0' * 64}"
    writer.execute("INSERT INTO links VALUES ('study', 11, ?)", [link])
    assert opened(path) == {"study": (HEADER, example_entries())}
    writer.execute("COMMIT")
    writer.close()
    assert opened(path) == {"study": (HEADER, [*example_entries(), Decision(0, "a", "b")])}


def test_a_writer_that_cannot_get_in_says_so_and_writes_nothing(path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    journal = open_sql(written(path))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked") as caught:
        journal.append("study", [FIRST], after=10)
    assert not isinstance(caught.value, ConflictError)
    assert journal.read("study") == example_entries()
    other.execute("ROLLBACK")
    other.close()
    assert journal.append("study", [FIRST], after=10) == 11


def test_a_kill_within_a_commit_is_rolled_back_by_the_next_reader(path, tmp_path):
    """The file as a kill leaves it between SQLite's journal and its pages."""
    written(path)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = DELETE")  # as files of earlier versions are
    writer.execute("PRAGMA cache_size = 1")  # spills pages into the file before the commit
    writer.execute("BEGIN IMMEDIATE")
    for i in range(11, 600):
        row = ("study", i, "decided", 0, "now", '{"x": "' + "y" * 500 + '"}', "")
        writer.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    copies = [tmp_path / "copy.db", tmp_path / "copy.db-journal"]
    shutil.copy(path, copies[0])
    shutil.copy(f"{path}-journal", copies[1])
    writer.close()
    assert copies[0].stat().st_size > 100_000, "nothing was spilled"
    assert opened(copies[0]) == {"study": (HEADER, example_entries())}


def test_a_kill_within_a_commit_leaves_nothing_in_the_write_ahead_log(path, tmp_path):
    """The files as a kill leaves them before the commit's last frame."""
    open_sql(written(path)).close()
    writer = sqlite3.connect(path, isolation_level=None)
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    writer.execute("PRAGMA cache_size = 1")  # spills pages into the log before the commit
    writer.execute("BEGIN IMMEDIATE")
    for i in range(11, 600):
        row = ("study", i, "decided", 0, "now", '{"x": "' + "y" * 500 + '"}', "")
        writer.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    for ending in ("", "-wal"):
        shutil.copy(f"{path}{ending}", tmp_path / f"copy.db{ending}")
    writer.close()
    assert (tmp_path / "copy.db-wal").stat().st_size > 100_000, "nothing was spilled"
    assert opened(tmp_path / "copy.db") == {"study": (HEADER, example_entries())}


def test_an_open_query_of_an_analyst_holds_up_no_round(path, monkeypatch):
    """A SELECT that was begun and not read to its end, as a notebook leaves it."""
    journal = open_sql(written(path))
    analyst = sqlite3.connect(path)
    analyst.execute("BEGIN")
    rows = analyst.execute("SELECT * FROM entries")
    rows.fetchone()
    begin = time.monotonic()
    for number in range(10, 30):
        journal.append("study", [FIRST], after=number)
    assert time.monotonic() - begin < 5
    assert len(rows.fetchall()) == 9  # what the analyst sees stays as it was
    analyst.close()
    assert len(journal.read("study")) == 30


# --- values -----------------------------------------------------------------------------------


def test_an_append_of_many_tables_is_one_transaction(path):
    journal = open_sql(written(path))
    before = path.read_bytes()
    known = example_entries()
    new = [
        CandidateAdded(2, 8, "proposal", (0.5, 2.0), {}),
        Planned(8, (0, 2), (0, 1), (0.5, 0.5)),
        known[4],  # readings that are stored already: the key refuses them
        Decision(8, "after", ""),
    ]
    with pytest.raises(JournalError, match="nothing was written"):
        journal.append("study", new, after=len(known))
    assert path.read_bytes() == before
    for bad in (Decision(8, "a", "b", {"x": {1, 2}}), Decision(2**63, "a", "b")):
        with pytest.raises(JournalError, match="cannot store"):
            journal.append("study", [*new[:2], bad], after=len(known))
        assert path.read_bytes() == before
    assert journal.append("study", new[:2], after=len(known)) == len(known) + 2


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (Configured([1]), "config is .* expected a mapping"),
        (CandidateAdded("a", 0, "base", (), {}), "candidate holds 'a'"),
        (CandidateAdded(True, 0, "base", (), {}), "candidate holds True"),
        (CandidateAdded(0, 1.0, "base", (), {}), "round holds 1.0"),
        (CandidateAdded(0, 0, None, (), {}), "origin is None"),
        (CandidateAdded(0, 0, "base", [0.5], {}), "theta is .* expected several"),
        (CandidateAdded(0, 0, "base", (float("nan"),), {}), "theta holds nan"),
        (CandidateAdded(0, 0, "base", (0.5,), None), "parameters is None"),
        (Planned(0, (0, 1), (0,), (1.0,)), "differ in length"),
        (Planned(0, (0,), (0.5,), (1.0,)), "slots holds 0.5"),
        (Planned(0, (0,), (0,), (float("inf"),)), "shares holds inf"),
        (Planned(0, (0,), (0,), (1.0,), 5), "trigger is 5"),
        (Planned(0, 0, (0,), (1.0,)), "candidates is 0"),
        (ReadingsReceived((0,), (0,), (0,), (0,), (1,), (1.0,), ()), "differ in length"),
        (ReadingsReceived((0,), (0,), (0,), (0,), ("1",), (1.0,), (1.0,)), "count holds '1'"),
        (Decision(0, "kind", 3, {}), "reason is 3"),
        (Decision(0, "kind", "reason", "{}"), "details is '{}'"),
    ],
)
def test_flaw_names_what_is_no_entry(entry, reason):
    with pytest.raises(ValueError, match=reason):
        raise ValueError(flaw(entry))


def test_flaw_finds_none_in_entries():
    assert [flaw(e) for e in example_entries()] == [None] * 10
    assert [e for e in random_entries(random.Random(3), 300) if flaw(e)] == []


def test_an_unknown_study_is_offered_the_way_to_start_one(path):
    for journal in (MemoryJournal(), open_sql(path)):
        with pytest.raises(StudyNotFoundError, match=r"it holds none.*hz\.Tuner"):
            journal.header("feed")


# --- for analysts -----------------------------------------------------------------------------


def test_an_analyst_can_query_the_tables(path):
    """Plain SQL, as it stands in a notebook of someone who never heard of this package."""
    space = hz.SearchSpace([hz.Float("w", 0.0, 1.0)])
    problem = hz.Problem(space, {"w": 0.5}, ["views", "likes"], "views", ["likes >= 0"])
    config = hz.TunerConfig(num_draws=8, initial_candidates=3)
    tuner = hz.Tuner(problem, config, f"sqlite:///{path}", "feed")
    plan = tuner.ask()
    arms = len(plan)
    mean = [[3.0 + i, 0.25] for i in range(arms)]
    args = (0, plan.candidate_ids, [100] * arms)
    tuner.tell(hz.Readings(*args, mean, [[1.0, 0.1]] * arms))
    tuner.tell(hz.Readings(*args, [[9.0, 0.5]] * arms, [[1.0, 0.1]] * arms, revision=2))
    tuner.journal.close()

    traffic = execute(
        path,
        """SELECT p.candidate, c.origin, json_extract(c.parameters, '$.w'), sum(p.share)
           FROM plans p JOIN candidates c USING (study, candidate)
           WHERE p.study = 'feed' GROUP BY p.candidate ORDER BY p.candidate""",
    )
    assert [row[0] for row in traffic] == list(plan.candidate_ids)
    assert [row[1] for row in traffic] == ["base"] + ["initial"] * (arms - 1)
    assert [row[2] for row in traffic] == [p["w"] for p in plan.parameters]
    assert [row[3] for row in traffic] == list(plan.shares)

    latest = execute(
        path,
        """SELECT candidate, metric, revision, mean FROM readings r
           WHERE study = 'feed' AND round = 0 AND revision = (
             SELECT max(revision) FROM readings l WHERE (l.study, l.round, l.candidate, l.metric)
             = (r.study, r.round, r.candidate, r.metric))
           ORDER BY candidate, metric""",
    )
    assert latest == [(c, m, 2, (9.0, 0.5)[m]) for c in plan.candidate_ids for m in (0, 1)]

    lifts = execute(
        path,
        """SELECT t.candidate, t.mean / c.mean - 1 FROM readings t JOIN readings c
           USING (study, round, metric, revision)
           WHERE c.candidate = 0 AND t.candidate > 0 AND metric = 0 AND revision = 0
           ORDER BY t.candidate""",
    )
    assert lifts == [(c, (3.0 + i) / 3.0 - 1) for i, c in enumerate(plan.candidate_ids)][1:]

    log = execute(path, "SELECT kind, count(*), min(at) FROM entries GROUP BY kind ORDER BY kind")
    assert [row[:2] for row in log] == [
        ("born", arms), ("configured", 1), ("planned", 1), ("received", 2)
    ]  # fmt: skip
    assert all(row[2].endswith("+00:00") for row in log)


def test_a_journal_of_format_3_keeps_its_tables(path):
    """Whoever changes a table must raise ``FORMAT_VERSION``: files of users are out there."""
    open_sql(path).close()
    engine = sa.create_engine(f"sqlite:///{path}")
    inspector = sa.inspect(engine)
    columns = {
        table: [c["name"] for c in inspector.get_columns(table)]
        for table in inspector.get_table_names()
    }
    indexes = {i["name"] for table in columns for i in inspector.get_indexes(table)}
    engine.dispose()
    assert schema.FORMAT_VERSION == 3
    assert indexes == {"candidates_by_entry", "plans_by_entry", "readings_by_entry"}
    assert columns == {
        "hyperzero_journal": ["version", "package", "at", "link"],
        "studies": ["study", "seed", "problem"],
        "metrics": ["study", "metric", "name"],
        "entries": ["study", "entry", "kind", "round", "at", "details", "digest"],
        "candidates": ["study", "candidate", "entry", "round", "origin", "theta", "parameters"],
        "plans": ["study", "round", "candidate", "entry", "slots", "share"],
        "readings": [
            "study", "round", "candidate", "metric", "revision", "entry", "count", "mean", "var"
        ],
        "decisions": ["study", "entry", "round", "kind", "reason", "details"],
        "chains": ["study", "entries_before", "at", "link"],
        "links": ["study", "entry", "link"],
    }  # fmt: skip


def test_every_error_is_one_of_ours():
    assert issubclass(ConflictError, HyperZeroError)
    for error in (ForeignJournalError, JournalCorruptError, StudyNotFoundError, ConflictError):
        assert issubclass(error, JournalError)
