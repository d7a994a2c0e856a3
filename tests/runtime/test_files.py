"""Locks of files: one process at a time, held by nobody else, and nothing left behind."""

import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from hyperzero_torch.errors import ConfigError
from hyperzero_torch.runtime import files
from hyperzero_torch.runtime.files import locked, write_atomically

COUNT = """
import sys
from pathlib import Path
from hyperzero_torch.runtime.files import locked, write_atomically
path = Path(sys.argv[1])
for _ in range(60):
    with locked(path):
        write_atomically(path, str(int(path.read_text()) + 1))
"""


def test_no_change_of_many_processes_is_lost(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")
    command = [sys.executable, "-c", COUNT, str(path)]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert path.read_text() == "180"
    assert os.listdir(tmp_path) == ["count"]


def test_no_change_of_many_threads_is_lost(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")

    def work():
        for _ in range(40):
            with locked(path):
                write_atomically(path, str(int(path.read_text()) + 1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == "160"


def test_nobody_else_can_open_the_lock_and_a_dead_process_holds_up_nobody(tmp_path):
    path = tmp_path / "flags.json"
    tmp_path.chmod(0o755)
    with locked(path):
        (lock,) = tmp_path.iterdir()
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []
    lock.write_text("")  # as a killed process leaves it
    lock.chmod(0o666)
    begin = time.monotonic()
    with locked(path):
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    assert time.monotonic() - begin < 5


def test_a_reader_of_the_folder_cannot_hold_it_up(tmp_path):
    """Whoever can open the folder could hold a lock on it for ever."""
    import fcntl

    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        begin = time.monotonic()
        with locked(tmp_path / "flags.json"):
            pass
        assert time.monotonic() - begin < 5
    finally:
        os.close(folder)


def test_a_lock_that_is_held_is_waited_for_and_then_named(tmp_path, monkeypatch):
    path = tmp_path / "flags.json"
    monkeypatch.setattr(files, "_LOCK_SECONDS", 0.05)
    message = r"locked by another process.*\.lock"
    with locked(path), pytest.raises(ConfigError, match=message), locked(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_user_or_a_link_is_not_taken(tmp_path, monkeypatch):
    path = tmp_path / "flags.json"
    lock = tmp_path / ".flags.json.lock"
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="symbolic link"), locked(path):
        pass
    lock.unlink()
    assert list(tmp_path.iterdir()) == []
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    lock.write_text("")
    os.chown(lock, 12345, -1)
    lock.chmod(0o666)
    monkeypatch.setattr(files, "_LOCK_SECONDS", 0.05)
    with pytest.raises(ConfigError, match=r"another user \(id 12345\)"), locked(path):
        pass


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "none" / "flags.json"
    with pytest.raises(ConfigError, match="in a folder that exists"), locked(path):
        pass
