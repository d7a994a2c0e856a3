"""The hash chain of a journal: whatever is changed in the tables is noticed and named."""

import atexit
import contextlib
import functools
import json
import shutil
import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from support.postgres import shared_server, why_not
from support.small_study import make, play, reply

import hyperzero_torch as hz
from hyperzero_torch.cli import main
from hyperzero_torch.errors import ConfigError, InputError, JournalCorruptError, JournalError
from hyperzero_torch.study.journal import (
    Compacted,
    Decision,
    MemoryJournal,
    ReadingsReceived,
    StudyHeader,
    schema,
)
from hyperzero_torch.study.journal.keys import KeyRing
from hyperzero_torch.study.journal.sql import SqlJournal
from hyperzero_torch.study.journal.verified import UNSIGNED, ChainedJournal, Head
from hyperzero_torch.testing import example_entries
from hyperzero_torch.testing.entries import FIRST, evidence, received

FIXTURES = Path(__file__).parents[1] / "fixtures"
HEADER = StudyHeader("study", 5, {"objective": "views", "metrics": ["views", "likes"]})
KEY, OTHER = "k" * 32, "o" * 32
TABLES = schema.tables.tables


@pytest.fixture(scope="session")
def server():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    return shared_server()


@functools.cache
def written():
    """A file with the study, made once."""
    folder = Path(tempfile.mkdtemp(prefix="chain"))
    atexit.register(shutil.rmtree, folder)
    journal = SqlJournal(f"sqlite:///{folder}/journal.db")
    journal.create(HEADER, example_entries()[:4])
    journal.append("study", example_entries()[4:], after=4)
    journal.close()
    return folder / "journal.db"


class Place:
    """A journal of one database, changed by raw SQL, and the command that verifies it."""

    def __init__(self, url, server, capsys):
        self.url, self._server, self._capsys = url, server, capsys

    def journal(self, **how):
        return SqlJournal(self.url, **how)

    def write(self, entries=None, **how):
        """Start the study, and close the journal again."""
        is_usual = entries is None and not how and not KeyRing.from_environment().keys
        if self._server is None and is_usual:
            shutil.copy(written(), self.url.removeprefix("sqlite:///"))
            return
        journal = self.journal(**how)
        entries = entries or example_entries()
        journal.create(HEADER, entries[:4])
        journal.append("study", entries[4:], after=4)
        journal.close()

    def execute(self, *statements):
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                results = [connection.exec_driver_sql(statement) for statement in statements]
                return results[-1].fetchall() if results[-1].returns_rows else results[-1].rowcount
        finally:
            engine.dispose()

    def verify(self, *options):
        """Exit code, standard output, standard error."""
        try:
            main(["verify", self.url, *options])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path, capsys):
    if request.param == "sqlite":
        return Place(f"sqlite:///{tmp_path}/journal.db", None, capsys)
    server = request.getfixturevalue("server")
    return Place(server.schema(), server, capsys)


# --- every column of every table --------------------------------------------------------------

COLUMNS = [(table.name, column.name) for table in TABLES.values() for column in table.columns]


def changed(table, column):
    """SQL of another value than that of a column, of its type."""
    kind = TABLES[table].c[column].type
    if isinstance(kind, sa.JSON):
        return "'[0.125]'" if column == "theta" else "'{\"other\": 1}'"
    if isinstance(kind, sa.String):
        return f"{column} || 'x'"
    if isinstance(kind, sa.Integer):
        return f"coalesce({column}, 0) + 1000"
    return f"{column} * (1 + 5e-16) + 1e-300"


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_changed_column_is_noticed(place, table, column):
    place.write()
    where = "" if table in ("hyperzero_journal", "studies", "chains") else (
        f" WHERE entry = (SELECT max(entry) FROM {table})" if "entry" in TABLES[table].c
        else " WHERE metric = 1"
    )  # fmt: skip
    num = place.execute(f"UPDATE {table} SET {column} = {changed(table, column)}{where}")
    assert num >= 1
    code, out, err = place.verify()
    if (table, column) == ("hyperzero_journal", "version"):
        assert code == 4  # a journal of a later format
        return
    assert code == 8, (out, err)
    assert "study" in err or table == "hyperzero_journal"
    if table == "hyperzero_journal":
        assert "the journal: its version, package or time was changed" in err
        assert out  # the study itself is as it was written
    else:
        assert out == ""


@pytest.mark.parametrize("table", sorted(set(TABLES) - {"hyperzero_journal"}))
def test_a_deleted_row_is_noticed(place, table):
    place.write()
    column = next((c for c in ("entry", "metric") if c in TABLES[table].c), "study")
    place.execute(f"DELETE FROM {table} WHERE {column} = (SELECT min({column}) FROM {table})")
    code, out, err = place.verify()
    assert (code, out) == (8, "")
    assert "'study'" in err


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (
            ["UPDATE decisions SET reason = 'all is well' WHERE entry = 10"],
            ["entry 10", "a decision with its reason"],
        ),
        (
            [f"DELETE FROM {t} WHERE entry = 7" for t in ("entries", "plans", "links")],
            ["entry 7", "entry 7 is missing"],
        ),
        (
            ["DELETE FROM entries WHERE entry = 7"],
            ["entry 7", "what is left of it is in plans, links"],
        ),
        (  # two messages of readings change places
            [
                "UPDATE entries SET entry = -5 WHERE entry = 5",
                "UPDATE entries SET entry = 5 WHERE entry = 8",
                "UPDATE entries SET entry = 8 WHERE entry = -5",
                "UPDATE readings SET entry = -5 WHERE entry = 5",
                "UPDATE readings SET entry = 5 WHERE entry = 8",
                "UPDATE readings SET entry = 8 WHERE entry = -5",
            ],
            ["entry 5", "entry 8"],
        ),
        (["UPDATE studies SET seed = 6"], ["its header is not what was written"]),
        (["UPDATE entries SET at = '2020-01-01' WHERE entry = 3"], ["entry 3"]),
        (["UPDATE plans SET round = 5 WHERE entry = 7"], ["entry 7", "a plan"]),
        (
            ["INSERT INTO readings VALUES ('study', 3, 0, 0, 0, 5, 1.0, 1.0, 1.0)"],
            ["entry 5", "readings"],
        ),
        (
            ["INSERT INTO readings VALUES ('study', 3, 0, 0, 0, 99, 1.0, 1.0, 1.0)"],
            ["entry 99", "what is left of it is in readings"],
        ),
        (["UPDATE studies SET study = 'other'"], ["study 'study'", "it is missing", "'other'"]),
        (["DELETE FROM links"], ["it is not in the chain"]),
        (["DELETE FROM chains"], ["its chain has no beginning"]),
        (["UPDATE decisions SET study = 'gone'"], ["study 'gone': it is missing"]),
        (["DELETE FROM hyperzero_journal"], ["journal"]),
    ],
)
def test_what_is_wrong_is_named(place, statements, words):
    place.write()
    place.execute(*statements)
    code, out, err = place.verify()
    assert (code, out) == (4 if "hyperzero_journal" in statements[0] else 8, "")
    for word in words:
        assert word in err


def test_a_deleted_entry_of_which_the_numbers_are_closed_up_is_noticed(place):
    place.write()
    place.execute(
        *(f"DELETE FROM {t} WHERE entry = 9" for t in ("entries", "readings", "links")),
        *(f"UPDATE {t} SET entry = 9 WHERE entry = 10" for t in ("entries", "decisions", "links")),
    )
    code, _, err = place.verify()
    assert code == 8
    assert "entry 9: it is not what was written" in err


def test_a_damaged_value_is_named_and_the_rest_is_verified(tmp_path, capsys):
    place = Place(f"sqlite:///{tmp_path}/journal.db", None, capsys)
    place.write()
    place.execute(
        "UPDATE entries SET details = '{' WHERE entry = 6",
        "UPDATE readings SET mean = x'00' WHERE entry = 8 AND candidate = 1",
        "UPDATE entries SET entry = 999999999999 WHERE entry = 9",
        "UPDATE plans SET entry = 'x' WHERE entry = 7 AND candidate = 1",
    )
    code, out, err = place.verify("--json")
    assert code == 8
    result = json.loads(out)
    named = {fault["entry"] for fault in result["studies"][0]["faults"]}
    assert {6, 7, 8, 9, 999999999999} <= named
    assert not named & {1, 2, 3, 4, 5}
    assert "rows of plans belong to no entry" in err


# --- heads noted elsewhere --------------------------------------------------------------------


def test_a_missing_tail_is_noticed_with_a_head_noted_elsewhere(place, tmp_path):
    place.write()
    code, out, err = place.verify()
    assert code == 0
    assert "10 entries are what was written" in err
    heads = tmp_path / "heads.txt"
    heads.write_text(out)
    head = out.split()[0]
    assert place.verify("--head", str(heads))[0] == 0
    assert place.verify("--head", head)[0] == 0
    for table in ("entries", "decisions", "links"):
        place.execute(f"DELETE FROM {table} WHERE entry = 10")
    assert place.verify()[0] == 0, "a prefix is a study as well"
    for noted in (str(heads), head):
        code, _, err = place.verify("--head", noted)
        assert code == 8
        assert "entry 10" in err
        assert "entries are missing at the end" in err


def test_a_study_file_names_its_journal_from_its_own_folder(tmp_path, monkeypatch, capsys):
    def output(*arguments):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert not end.value.code
        return capsys.readouterr().out

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    output("init")
    output("step", "-c", "tuning.yaml", "--plan", "plan.json")
    monkeypatch.chdir(tmp_path)
    head = output("verify", "here/tuning.yaml")
    assert head == output("verify", "here/study.db")
    assert Head.of(head.split()[0]).entry > 0


def test_a_head_stays_right_while_the_study_goes_on(place, tmp_path):
    place.write()
    heads = tmp_path / "heads.txt"
    heads.write_text(place.verify()[1])
    journal = place.journal()
    journal.append("study", [Decision(7, "later", "")], after=10)
    journal.create(replace(HEADER, study='odd "name"\n '), [FIRST])
    journal.close()
    code, out, _ = place.verify("--head", str(heads))
    assert code == 0
    assert len(out.splitlines()) == 2
    heads.write_text(out)
    assert place.verify("--head", str(heads))[0] == 0


def test_a_chain_that_was_computed_anew_is_noticed_with_a_head(place):
    place.write()
    head = place.verify()[1].split()[0]
    journal = place.journal()
    entries = journal.read("study")
    journal.close()
    for table in schema.tables.tables:
        place.execute(f"DELETE FROM {table}" if table != "hyperzero_journal" else "SELECT 1")
    entries[-1] = replace(entries[-1], reason="rewritten")
    place.write(entries)
    assert place.verify()[0] == 0
    code, _, err = place.verify("--head", head)
    assert code == 8
    assert "the chain was computed again" in err


def test_a_lost_study_is_noticed_with_a_file_of_heads(place, tmp_path):
    place.write()
    heads = tmp_path / "heads.txt"
    heads.write_text(place.verify()[1].replace(" study", " feed"))
    code, _, err = place.verify("--head", str(heads))
    assert code == 8
    assert "study 'feed': it is missing; a head of it was noted" in err


def test_wrong_usage_is_told(place, tmp_path):
    place.write()
    journal = place.journal()
    journal.create(replace(HEADER, study="other"), [FIRST])
    journal.close()
    code, _, err = place.verify("--study", "none")
    assert code == 4
    assert "'other', 'study'" in err
    head = f"sha256:{'0' * 64}@3"
    code, _, err = place.verify("--head", head)
    assert code == 3
    assert "--study" in err
    assert place.verify("--head", head, "--study", "study")[0] == 8
    code, _, err = place.verify("--head", "sha256:abc@3")
    assert code == 3
    assert "expected a head such as" in err
    (tmp_path / "bad.txt").write_text("hello\n")
    assert place.verify("--head", str(tmp_path / "bad.txt"))[0] == 3
    (tmp_path / "empty.txt").write_text("\n")
    assert place.verify("--head", str(tmp_path / "empty.txt"))[0] == 3


def test_a_file_that_is_no_journal_is_told(tmp_path, capsys):
    missing = Place(f"{tmp_path}/nowhere.db", None, capsys)
    code, _, err = missing.verify()
    assert code == 4
    assert "there is no file" in err
    (tmp_path / "text.txt").write_text("hello")
    assert Place(f"{tmp_path}/text.txt", None, capsys).verify()[0] == 4


def test_a_path_is_as_good_as_a_url(tmp_path, capsys):
    place = Place(f"sqlite:///{tmp_path}/journal.db", None, capsys)
    place.write()
    assert Place(f"{tmp_path}/journal.db", None, capsys).verify()[1] == place.verify()[1]


# --- keys -------------------------------------------------------------------------------------


def test_a_signed_chain_cannot_be_computed_anew_without_the_key(place, monkeypatch, tmp_path):
    monkeypatch.setenv("HYPERZERO_JOURNAL_KEY", KEY)
    place.write()
    code, out, err = place.verify()
    assert code == 0
    assert out.startswith("hmac-")
    assert "signed from entry 1 on" in err
    monkeypatch.delenv("HYPERZERO_JOURNAL_KEY")
    code, _, err = place.verify()
    assert code == 4
    assert "HYPERZERO_JOURNAL_KEY" in err
    journal = place.journal()
    assert len(journal.read("study")) == 10, "reading needs no key"
    with pytest.raises(JournalError, match=r"signed with the key .*nothing was written"):
        journal.append("study", [FIRST], after=10)
    entries = journal.read("study")
    journal.close()
    for table in schema.tables.tables:
        place.execute(f"DELETE FROM {table}" if table != "hyperzero_journal" else "SELECT 1")
    place.write(entries)  # by somebody without the key
    key_file = tmp_path / "key"
    key_file.write_text(KEY + "\n")
    key_file.chmod(0o600)
    code, _, err = place.verify("--key-file", str(key_file))
    assert code == 8
    assert "the last link is not signed with the key" in err


def test_a_key_that_comes_later_signs_when_a_person_says_so(place, tmp_path):
    place.write()
    head = place.verify()[1].split()[0]
    journal = place.journal(keys=KeyRing.of([KEY], ""))
    result = journal.verify("study")
    assert "if the key is new, compare with a head" in result.faults[-1].what
    with pytest.raises(JournalError, match=r"not signed, .*nothing was written.* --sign"):
        journal.append("study", [FIRST], after=10)
    assert len(journal.read("study")) == 10
    key_file = tmp_path / "key"
    key_file.write_text(KEY + "\n")
    key_file.chmod(0o600)
    code, _, err = place.verify("--sign")
    assert (code, "no key to sign with" in err) == (3, True)
    wrong = f"sha256:{'0' * 64}@10"
    code, _, err = place.verify("--sign", "--key-file", str(key_file), "--head", wrong)
    assert code == 4
    assert "the chain was computed again" in err
    assert len(journal.read("study")) == 10
    code, _, err = place.verify("--sign", "--key-file", str(key_file), "--head", head)
    assert code == 0, err
    assert "signed from here on" in err
    assert "signed from entry 11 on" in err
    entry = journal.read("study")[10]
    assert (entry.kind, entry.details["entries"]) == ("chain signed", 10)
    code, _, err = place.verify("--sign", "--key-file", str(key_file))
    assert (code, "it is signed already" in err) == (0, True)
    journal.append("study", [FIRST], after=11)
    result = journal.verify("study")
    assert (result.faults, result.signed_from) == ((), 11)
    journal.close()
    other = place.journal(keys=KeyRing.of([OTHER], ""))
    with pytest.raises(JournalError, match="put the new one before the old one"):
        other.append("study", [FIRST], after=12)
    assert "which is not among those given" in other.verify("study").faults[0].what
    other.close()
    both = place.journal(keys=KeyRing.of([OTHER, KEY], ""))
    both.append("study", [FIRST], after=12)
    assert both.verify("study").ok
    both.close()


def test_a_signed_chain_that_was_computed_anew_gets_no_signature(place):
    """Neither from the next append nor from a claim that the format is an earlier one."""
    ring = KeyRing.of([KEY], "")
    place.write(keys=ring)
    place.execute("DROP TABLE links", "DROP TABLE chains",
                  "ALTER TABLE hyperzero_journal DROP COLUMN link",
                  "UPDATE hyperzero_journal SET version = 2",
                  "UPDATE entries SET at = '2020-01-01'")  # fmt: skip
    journal = place.journal(keys=ring)  # brings it to today's format
    assert [f.what for f in journal.verify("study").faults] == [UNSIGNED]
    assert len(journal.read("study")) == 10
    with pytest.raises(JournalError, match=r"not signed, .*nothing was written"):
        journal.append("study", [FIRST], after=10)
    assert [f.what for f in journal.verify("study").faults] == [UNSIGNED]
    journal.close()


def test_a_chain_without_signatures_after_a_signed_beginning_is_noticed(place):
    place.write(keys=KeyRing.of([KEY], ""))
    place.execute(f"UPDATE links SET link = 'sha256:{'0' * 64}'")
    journal = place.journal(keys=KeyRing.of([KEY], ""))
    faults = journal.verify("study").faults
    assert any(f.entry == 1 and "it is not signed, but" in f.what for f in faults)
    journal.close()


def test_an_unsigned_entry_after_signed_ones_is_noticed(place):
    ring = KeyRing.of([KEY], "")
    place.write(keys=ring)
    link = place.execute("SELECT link FROM links WHERE entry = 9")[0][0]
    assert link.startswith("hmac-")
    place.execute(f"UPDATE links SET link = 'sha256:{'0' * 64}' WHERE entry = 10")
    journal = place.journal(keys=ring)
    faults = [fault.what for fault in journal.verify("study").faults]
    assert any("it is not signed, but entries before it are" in what for what in faults)
    journal.close()


def test_a_key_file_that_others_can_read_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        KeyRing.from_file(file)
    file.chmod(0o600)
    assert KeyRing.from_file(file).keys == (KEY.encode(),)
    monkeypatch.setenv("HYPERZERO_JOURNAL_KEY_FILE", str(file))
    assert KeyRing.from_environment() == KeyRing.from_file(file)
    monkeypatch.setenv("HYPERZERO_JOURNAL_KEY", OTHER)
    with pytest.raises(ConfigError, match="not both"):
        KeyRing.from_environment()
    monkeypatch.delenv("HYPERZERO_JOURNAL_KEY_FILE")
    assert KEY not in repr(KeyRing.from_environment())
    monkeypatch.setenv("HYPERZERO_JOURNAL_KEY", "s3cret")
    with pytest.raises(ConfigError, match="at least 16 bytes") as caught:
        SqlJournal(f"sqlite:///{tmp_path}/a.db")
    assert "s3cret" not in str(caught.value)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="holds no key"):
        KeyRing.from_file(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        KeyRing.from_file(tmp_path / "none")


# --- compaction -------------------------------------------------------------------------------


def compacted(place):
    """A journal in which two messages lost readings, one of them twice."""
    journal = place.journal()
    rows = ((0, 0, 7, 8), (0, 1, 0, 0), (0,) * 4, (0,) * 4, (9.0,) * 4, (1.5,) * 4, (0.5,) * 4)
    journal.create(HEADER, [FIRST, ReadingsReceived(*rows)])
    journal.append("study", [received((2,), mean=(0.25,))], after=2)
    journal.append("study", [Compacted((0,), (2, 3), 3, evidence(0.1))], after=3)
    journal.append("study", [Decision(1, "a", "b")], after=4)
    journal.append("study", [Compacted((7,), (2,), 1, evidence(0.1))], after=5)
    return journal


def test_a_compaction_is_no_fault(place):
    journal = compacted(place)
    before = Head.of(str(journal.verify("study").head))
    assert place.execute("SELECT count(*) FROM readings") == [(1,)]
    assert journal.verify("study", before).ok
    journal.append("study", [FIRST], after=6)
    assert journal.verify("study", before).ok
    journal.close()
    assert place.verify()[0] == 0


@pytest.mark.parametrize(
    ("statement", "entry"),
    [
        ("DELETE FROM readings", 2),
        ("UPDATE readings SET mean = 1.25", 2),
        ("INSERT INTO readings VALUES ('study', 0, 2, 0, 0, 3, 1000.0, 0.25, 0.0)", 3),
        ("UPDATE entries SET digest = 'x' WHERE entry = 3", 3),
        ("UPDATE entries SET details = '{\"rows\": 1}' WHERE entry = 2", 2),
        ("UPDATE entries SET at = 'x' WHERE entry = 3", 3),
    ],
)
def test_readings_that_no_compaction_deleted_are_missed(place, statement, entry):
    compacted(place).close()
    place.execute(statement)
    code, _, err = place.verify()
    assert code == 8
    assert f"entry {entry}: its remaining readings are not those" in err


def test_a_compaction_that_is_rewritten_is_noticed(place):
    compacted(place).close()
    details = json.loads(
        place.execute("SELECT CAST(details AS VARCHAR) FROM entries WHERE entry = 4")[0][0]
    )
    details["replaced"]["2"][0] = "0" * 64
    place.execute(f"UPDATE entries SET details = '{json.dumps(details)}' WHERE entry = 4")
    code, _, err = place.verify()
    assert code == 8
    assert "entry 2: it is not what was written" in err
    assert "entry 4: it is not what was written: the evidence" in err


def test_a_study_that_compacts_itself_verifies(tmp_path):
    config = hz.TunerConfig.paper(
        block_rounds=24, initial_candidates=4, proposal_probability=0, num_draws=50
    )
    for journal in (SqlJournal(f"sqlite:///{tmp_path}/a.db"), MemoryJournal()):
        tuner = make(journal, config)
        play(tuner, 50)
        assert tuner.study.compact(keep=2).rows > 0
        play(tuner, 2)
        result = tuner.study.verify()
        assert result.ok, result.faults
        result.check()
        assert result.entries == tuner.history.num_entries == result.head.entry
        journal.close()


# --- studies ----------------------------------------------------------------------------------


def test_a_journal_in_memory_has_a_chain_too():
    tuner = make()
    assert isinstance(tuner.journal, ChainedJournal)
    play(tuner, 2)
    first = str(tuner.study.verify().head)
    play(tuner, 1)
    assert tuner.study.verify(first).ok
    entry = tuner.journal.read("default")[-1]
    entry.mean[0:0]
    object.__setattr__(entry, "mean", (entry.mean[0] + 1e-9, *entry.mean[1:]))
    result = tuner.study.verify(first)
    assert [fault.entry for fault in result.faults] == [result.entries]
    with pytest.raises(JournalCorruptError, match="is not what was written"):
        result.check()
    with pytest.raises(InputError, match="expected a head"):
        tuner.study.verify("nonsense")


def test_a_journal_without_a_chain_says_so():
    class Plain:
        """The methods of ``Journal`` and no others."""

        def __init__(self):
            own = MemoryJournal()
            for name in ("studies", "create", "header", "append", "read", "close"):
                setattr(self, name, getattr(own, name))

    tuner = make(Plain())
    play(tuner, 1)
    with pytest.raises(JournalError, match="Plain keeps no hash chain"):
        tuner.study.verify()


def test_the_chain_of_an_older_journal_begins_when_it_is_opened(tmp_path, capsys):
    path = tmp_path / "old.db"
    shutil.copy(FIXTURES / "journal_of_events.db", path)
    with sqlite3.connect(path) as db:
        (before,) = db.execute("SELECT max(entry) FROM entries").fetchone()
    db.close()
    place = Place(str(path), None, capsys)
    code, _, err = place.verify()
    assert code == 0
    assert f"with the {before} entries that were there" in err
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.4, "b": 0.6}, ["gain", "guard"], "gain", ["guard >= -2.5%"])
    tuner = hz.Tuner.resume(f"sqlite:///{path}", "feed", problem=problem)
    for _ in range(2):
        tuner.study.note("remark", "going on")
    remarks = [d for d in tuner.decisions if d.kind == "chain"]
    assert len(remarks) == 1
    assert f"begins after entry {before}" in remarks[0].reason
    assert remarks[0].trace.entries == before
    assert tuner.study.verify().ok
    tuner.journal.close()
    place = Place(f"sqlite:///{path}", None, capsys)
    place.execute("UPDATE decisions SET reason = reason || '.' WHERE entry = 42")
    place.execute("UPDATE entries SET at = 'x' WHERE entry = 12")
    code, _, err = place.verify()
    assert code == 8
    assert "entry 12:" in err
    place.execute("UPDATE chains SET entries_before = entries_before - 1")
    assert "where the chain begins" in place.verify()[2]


def test_a_new_study_has_no_remark_about_its_chain(place):
    tuner = make(place.journal())
    play(tuner, 1)
    assert [d for d in tuner.decisions if d.kind == "chain"] == []
    with pytest.raises(ConfigError, match="chain"):
        tuner.study.note("chain", "mine")
    tuner.journal.close()


def test_a_running_process_notices_that_the_journal_was_rewritten(place):
    tuner = make(place.journal())
    play(tuner, 2)
    plan = tuner.ask()
    place.execute(f"UPDATE links SET link = 'sha256:{'0' * 64}' WHERE entry = "
                  "(SELECT max(entry) FROM links)")  # fmt: skip
    with pytest.raises(JournalCorruptError, match="is not the one that this process has read"):
        tuner.tell(reply(plan))
    tuner.journal.close()


def test_an_append_reads_no_earlier_entries(tmp_path):
    """A long journal is not read again: statements of an append name single rows."""
    journal = SqlJournal(f"sqlite:///{tmp_path}/a.db")
    journal.create(HEADER, [FIRST])
    journal.append("study", [Decision(0, "a", "b")] * 3000, after=1)
    seen = []
    engine = journal.database.engine
    sa.event.listen(engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
    journal.append("study", [Decision(0, "a", "b")], after=3001)
    assert len(seen) < 12
    reads = [s for s in seen if s.startswith("SELECT") and "links" in s]
    assert reads
    assert all("LIMIT" in s or "links.entry = ?" in s for s in reads)
    plan = sqlite3.connect(tmp_path / "a.db").execute(
        "EXPLAIN QUERY PLAN SELECT entry, link FROM links WHERE study = 'study' "
        "ORDER BY entry DESC LIMIT 1"
    ).fetchall()  # fmt: skip
    assert "SEARCH links USING INDEX" in plan[0][3]
    assert journal.verify("study").ok
    journal.close()


# --- properties -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data())
def test_any_change_of_any_row_is_noticed_in_memory(data):
    """Whatever two entries change places, whichever is dropped or doubled."""
    journal = MemoryJournal()
    entries = example_entries()
    journal.create(HEADER, entries)
    assert journal.verify("study").ok
    log = journal._logs["study"]
    at = data.draw(st.integers(0, len(entries) - 1))
    kind = data.draw(st.sampled_from(["swap", "drop", "double", "reason"]))
    if kind == "swap":
        other = data.draw(st.integers(0, len(entries) - 1).filter(lambda i: i != at))
        log.entries[at], log.entries[other] = log.entries[other], log.entries[at]
    elif kind == "drop":
        del log.entries[at]
        del log.links[at]
        if at == len(entries) - 1:
            head = Head(f"sha256:{'0' * 64}", len(entries))
            assert not journal.verify("study", head).ok
            return
    elif kind == "double":
        log.entries.insert(at, log.entries[at])
        log.links.insert(at, log.links[at])
    else:
        log.entries[at] = Decision(0, "other", data.draw(st.text()))
    assert not journal.verify("study").ok


@given(st.text(max_size=120))
def test_any_text_is_a_head_or_an_input_error(text):
    with contextlib.suppress(InputError):
        assert str(Head.of(text)).startswith(("sha256:", "hmac-"))
