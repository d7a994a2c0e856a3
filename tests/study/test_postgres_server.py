"""The tests' own PostgreSQL ends with the tests, however these end."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.postgres import Server, why_not

RUN = "from support.postgres import Server; s = Server(); print(s.folder, s.port, flush=True); "
pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def gone(folder, port):
    for _ in range(600):
        if not folder.exists() and not answers(port):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_does_not_outlive_the_run_that_started_it(how):
    here = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", RUN + "import time; time.sleep(600)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": here},
    )
    with process:
        folder, port = process.stdout.readline().split()
        assert Path(folder).exists()
        assert answers(int(port))
        os.killpg(process.pid, how)  # the whole group, as a terminal or a timeout does
    assert gone(Path(folder), int(port))


def test_a_server_that_is_stopped_leaves_nothing():
    server = Server()
    assert server.execute("SELECT 1") == [(1,)]
    server.stop()
    assert not server.folder.exists()
    assert not answers(server.port)
    server.stop()  # twice is once
