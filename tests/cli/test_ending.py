"""SIGTERM and Ctrl-C end ``hyperzero run`` within seconds, whatever it waits for."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
import yaml

from hyperzero_torch.cli.ending import ending_within

STUDY = {
    "study": "feed",
    "parameters": [{"kind": "float", "name": "a", "low": 0, "high": 1}],
    "base": {"a": 0.5},
    "metrics": ["gain"],
    "objective": "gain",
    "traffic": {"num_draws": 20, "num_samples": 32, "initial_candidates": 2},
    "live": {
        "exposures": "x/*.parquet", "events": "e/*.parquet", "flags": "flags.json",
        "round_seconds": 3600,
    },
}  # fmt: skip
# Within a kernel or a database no handler of Python is called: a sleep in C stands for both.
BUSY = """
import ctypes, sys
from hyperzero_torch import cli
from hyperzero_torch.live.loop import Loop

def step(self, round):
    print("busy", flush=True)
    ctypes.CDLL(None).sleep(300)
    ctypes.CDLL(None).sleep(300)

Loop.step = step
cli.main(sys.argv[1:])
"""


@pytest.fixture
def config(tmp_path):
    pytest.importorskip("duckdb")
    path = tmp_path / "tuning.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


@pytest.fixture
def started(config):
    """Starts a loop; whatever was started ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(code):
            process = subprocess.Popen(
                [sys.executable, "-c", code, "run", "-c", str(config)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def seconds_to_end(process, number, times=1):
    begin = time.monotonic()
    for _ in range(times):
        os.kill(process.pid, number)
        time.sleep(0.3)
    process.wait(timeout=60)
    return time.monotonic() - begin


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_within_a_call_that_knows_no_signals(started, number):
    process = started(BUSY)
    assert any("busy" in line for line in process.stdout)
    assert 9 < seconds_to_end(process, number) < 20
    assert process.returncode == 128 + number
    assert "goes on from the journal" in process.stdout.read()


def test_a_second_signal_ends_it_at_once(started):
    process = started(BUSY)
    assert any("busy" in line for line in process.stdout)
    assert seconds_to_end(process, signal.SIGTERM, times=2) < 5


def test_another_thread_asks_the_work_to_end():
    """The main thread may hold the event's lock when the signal comes."""

    class Event(threading.Event):
        def set(self):
            by.append(threading.current_thread())
            super().set()

    by, stop = [], Event()
    with ending_within(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(20)
    assert by
    assert threading.main_thread() not in by


def test_where_nobody_reads_what_it_prints():
    code = """
import sys, threading
from hyperzero_torch.cli.ending import ending_within
with ending_within(threading.Event(), 1.0):
    print("busy", flush=True)
    while True:
        sys.stderr.write("x" * 10_000)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "busy\n"
        time.sleep(0.5)  # until the pipe is full
        assert seconds_to_end(process, signal.SIGTERM) < 20
        assert process.returncode == 128 + signal.SIGTERM


def test_while_the_database_is_locked(started, config):
    """Thirty seconds are waited for a lock; a signal is heard before."""
    process = started("import sys\nfrom hyperzero_torch import cli\ncli.main(sys.argv[1:])")
    assert any("round 0" in line for line in process.stdout)
    assert seconds_to_end(process, signal.SIGTERM) < 20
    assert process.returncode == 0  # it waited for the next round
    lock = sqlite3.connect(config.parent / "study.db", isolation_level=None)
    lock.execute("PRAGMA journal_mode = DELETE")
    lock.execute("BEGIN EXCLUSIVE")
    process = started(
        "import sys\nfrom hyperzero_torch import cli\nprint('begun', flush=True)\n"
        "cli.main(sys.argv[1:])"
    )
    assert any("begun" in line for line in process.stdout)
    time.sleep(5)
    assert process.poll() is None
    assert seconds_to_end(process, signal.SIGTERM) < 20
    assert process.returncode != 0
    lock.close()
