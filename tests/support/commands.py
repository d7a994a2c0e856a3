"""The command line for shell scripts, without importing PyTorch anew for every command.

A server process imports the package once and forks for each command. The script ``hyperzero`` that
``installed`` writes sends the server its arguments, folder, environment and open files, and exits
with the exit code of the command.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

CLIENT = """#!{python} -IS
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(call)
    answer = server.recv(1)
sys.exit(answer[0] if answer else 1)
"""


@contextlib.contextmanager
def installed(folder: Path):
    """A folder for the PATH with the script ``hyperzero``, as long as the context lasts."""
    address, script = str(folder / "socket"), folder / "hyperzero"
    script.write_text(CLIENT.format(python=sys.executable, address=address))
    script.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, __file__, address], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert server.stdout.readline() == b"ready\n"
        yield folder
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        server.stdout.close()


def serve(address):
    """Answer calls, each in a process of its own, until the run that started this has ended."""
    parent = os.getppid()
    import gpytorch  # noqa: F401
    import torch

    # What nearly every command imports: a journal brings SQLAlchemy.
    import hyperzero_torch.study.journal.sql  # noqa: F401
    from hyperzero_torch import cli

    with contextlib.suppress(ImportError):
        import duckdb  # noqa: F401
        import narwhals  # noqa: F401
        import openfeature.contrib.provider.flagd  # noqa: F401
        import plotly.graph_objects  # noqa: F401
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        listener.settimeout(2)
        while os.getppid() == parent:  # a run that is killed cannot end its server
            try:
                call, _ = listener.accept()
            except TimeoutError:
                continue
            call.setblocking(True)
            if os.fork():
                call.close()
            else:
                answer(call, cli.main)


def answer(call, main):
    """Run one command in this process and end it."""
    code = 1
    try:
        size, files, _, _ = socket.recv_fds(call, 8, 3)
        with call.makefile("rb") as stream:
            arguments, folder, environment = json.loads(stream.read(int.from_bytes(size, "big")))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        call.sendall(bytes([code]))
        os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
