"""A command that waits ends within seconds of SIGTERM or Ctrl-C, whatever it waits for.

Python calls a signal's handler between two of its own steps. Within a call of a database or of a
kernel there is none, so a thread watches for the signal too. The journal and the files are whole at
every moment, so the process may end anywhere.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .output import note, signals_to

#: Seconds that a round has to finish after a signal.
GRACE_SECONDS = 10.0


@contextmanager
def ending_within(stop: threading.Event, seconds: float = GRACE_SECONDS) -> Iterator[None]:
    """Set ``stop`` on SIGTERM and Ctrl-C; end the process where the block goes on for too long.

    A second signal ends it at once. Outside of the main thread, which alone gets signals, this does
    nothing.

    Args:
        stop: asks the work to end.
        seconds: how long it may take.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(reader, stop, done, seconds), daemon=True)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        # The thread sets ``stop``. A handler runs within whatever the main thread does, and where
        # that is waiting for ``stop``, it may hold the event's lock and would wait for itself.
        with signals_to(lambda *_: None):
            yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        writer.close()  # the watcher reads the end
        watcher.join()
        reader.close()


def _watch(
    reader: socket.socket, stop: threading.Event, done: threading.Event, seconds: float
) -> None:
    """Wait for a signal, then for the end of the work or a second signal."""
    number = _next_signal(reader)
    if number is None:
        return
    stop.set()
    deadline = time.monotonic() + seconds
    reader.settimeout(0.1)
    while not done.is_set():
        again = None
        with suppress(TimeoutError):
            again = _next_signal(reader)
            if again is None:
                return
        if again is not None or time.monotonic() > deadline:
            # Printing waits where nobody reads what the main thread is printing.
            printing = threading.Thread(target=_note_the_end, daemon=True)
            printing.start()
            printing.join(timeout=1.0)
            os._exit(128 + number)


def _note_the_end() -> None:
    with suppress(OSError, ValueError):
        note("ended within a round; the next start goes on from the journal")


def _next_signal(reader: socket.socket) -> int | None:
    """The number of the next signal to end; None at the end of the watch."""
    while byte := reader.recv(1):
        if byte[0] in (signal.SIGTERM, signal.SIGINT):
            return byte[0]
    return None
