"""A journal's file that is replaced, moved or removed while a process has it open."""

import contextlib
import os
import shutil
import sqlite3

import pytest
from support.journal_files import remove_logs
from support.writers import FIRST as ENTRY

from hyperzero_torch.errors import JournalCorruptError, JournalError
from hyperzero_torch.study.journal import Decision, StudyHeader
from hyperzero_torch.study.journal.sql import SqlJournal

HEADER = StudyHeader("feed", 7, {"variables": ["a"]})
FIRST = (ENTRY,)


def remark(number):
    return Decision(0, "remark", f"the {number}. remark")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


@pytest.fixture
def journal(path):
    opened = SqlJournal(f"sqlite:///{path}")
    opened.create(HEADER, FIRST)
    opened.append("feed", [remark(1)], len(FIRST))
    yield opened
    opened.close()


def stored(path):
    """The reasons that a process finds which opens the file now."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [reason for (reason,) in db.execute("SELECT reason FROM decisions ORDER BY entry")]


@pytest.mark.parametrize("logs", ["logs removed", "logs left"])
def test_what_is_written_after_the_file_was_replaced_is_in_the_new_file(journal, path, logs):
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    os.replace(copy, path)
    if logs == "logs removed":
        remove_logs(path)
    journal.append("feed", [remark(2)], len(FIRST) + 1)
    assert stored(path) == ["the 1. remark", "the 2. remark"]
    assert SqlJournal(f"sqlite:///{path}").verify("feed").ok


def test_an_older_copy_in_its_place_is_refused_until_a_new_start(journal, path):
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    journal.append("feed", [remark(2)], len(FIRST) + 1)
    os.replace(copy, path)
    remove_logs(path)
    for _ in range(2):
        with pytest.raises(JournalCorruptError, match="start this process again"):
            journal.append("feed", [remark(3)], len(FIRST) + 1)
        with pytest.raises(JournalCorruptError, match="start this process again"):
            journal.read("feed")
    assert stored(path) == ["the 1. remark"]
    again = SqlJournal(f"sqlite:///{path}")
    again.append("feed", [remark(3)], len(FIRST) + 1)
    assert stored(path) == ["the 1. remark", "the 3. remark"]


def test_a_file_that_is_gone_is_an_error_until_it_is_back(journal, path):
    away = path.with_name("away.db")
    os.replace(path, away)
    for _ in range(2):
        with pytest.raises(JournalError, match="moved or removed while it was in use"):
            journal.append("feed", [remark(2)], len(FIRST) + 1)
        with pytest.raises(JournalError, match="moved or removed while it was in use"):
            journal.read("feed")
    assert not path.exists(), "an empty file would be taken for a new journal"
    os.replace(away, path)
    journal.append("feed", [remark(2)], len(FIRST) + 1)
    assert stored(path) == ["the 1. remark", "the 2. remark"]


def test_an_empty_file_in_its_place_is_no_journal_of_the_study(journal, path):
    path.unlink()
    path.touch()
    with pytest.raises(JournalError):
        journal.append("feed", [remark(2)], len(FIRST) + 1)
    with pytest.raises(JournalError):
        journal.read("feed")


def test_a_log_that_was_removed_is_no_loss(journal, path):
    remove_logs(path)
    journal.append("feed", [remark(2)], len(FIRST) + 1)
    with SqlJournal(f"sqlite:///{path}").database.transaction() as connection:
        connection.exec_driver_sql("SELECT 1")
    journal.append("feed", [remark(3)], len(FIRST) + 2)
    remove_logs(path)
    assert stored(path) == ["the 1. remark", "the 2. remark", "the 3. remark"]


def replace_within(write, journal, path, monkeypatch):
    """Put a copy in the file's place before a write commits, or together with it."""
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    if write == "with the commit":
        with journal.database.transaction(write=True):
            os.replace(copy, path)
        return
    file = journal.database._file
    note = file.note
    with monkeypatch.context() as patch:
        patch.setattr(file, "note", lambda: (note(), os.replace(copy, path)))
        journal.append("feed", [remark(2)], len(FIRST) + 1)


@pytest.mark.parametrize(
    ("write", "stated"),
    [("before the commit", "nothing was written"), ("with the commit", "is lost")],
)
def test_a_file_replaced_within_a_write_is_an_error(journal, path, write, stated, monkeypatch):
    """The answer is never that it was written: it is in a file that nobody opens again."""
    with pytest.raises(JournalError, match=f"replaced, moved or removed.*{stated}"):
        replace_within(write, journal, path, monkeypatch)
    remove_logs(path)
    journal.append("feed", [remark(3)], len(FIRST) + 1)
    assert stored(path) == ["the 1. remark", "the 3. remark"]


def test_a_relative_path_is_that_of_the_opening(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = SqlJournal("sqlite:///study.db")
    journal.create(HEADER, FIRST)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    journal.append("feed", [remark(1)], len(FIRST))
    assert stored(tmp_path / "study.db") == ["the 1. remark"]
    assert not (tmp_path / "other" / "study.db").exists()
