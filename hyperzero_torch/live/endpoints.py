"""``/metrics``, ``/healthz`` and ``/readyz`` of a loop, answered by a thread of its own."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..errors import ConfigError
from .clock import Clock
from .round import Round
from .series import Moments

# Rounds without an end after which a loop counts as stuck: a round may take its whole length.
_STUCK_ROUNDS = 3.0
_SECONDS = 10.0  # that a client may take to send its request
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Health:
    """Whether a loop is alive, and whether what it serves is in order.

    Args:
        clock: the loop's.
        round_seconds: length of a round.
    """

    clock: Clock
    round_seconds: float
    last: Round | None = None
    lease: float = math.nan
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock.now()

    def observe(self, done: Round, moments: Moments) -> None:
        """Take note of a round that has ended."""
        self.last, self.lease, self._since = done, moments.lease, self.clock.now()

    def why_not_alive(self) -> list[str]:
        """Reasons to restart the process; none while rounds come to an end."""
        seconds = self.clock.now() - self._since
        if seconds <= _STUCK_ROUNDS * self.round_seconds:
            return []
        return [f"no round has ended for {seconds:.0f} s"]

    def why_not_ready(self) -> list[str]:
        """Why the present plan is not served; none where it is."""
        if self.last is None:
            return ["no round has ended yet"]
        reasons = self.why_not_alive()
        if self.last.plan is None:
            reasons.append(f"round {self.last.round} has no plan")
        elif not self.last.applied:
            reasons.append(f"the plan of round {self.last.round} is not served")
        if self.lease <= self.clock.now():
            reasons.append("the lease of what is served has run out")
        return reasons


def listen(
    address: str, port: int, metrics: Callable[[], bytes], health: Health | None = None
) -> int:
    """Answer requests in a thread; returns the port.

    Args:
        address: to listen at.
        port: 0 for a free one.
        metrics: the text of ``/metrics``.
        health: None where ``/healthz`` and ``/readyz`` are not answered.
    Raises:
        ConfigError: nothing can listen there.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS
        server_version, sys_version = "hyperzero", ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path in ("/metrics", "/"):
                self._answer(200, metrics(), _TEXT)
            elif health is not None and path in ("/healthz", "/readyz"):
                why = health.why_not_alive() if path == "/healthz" else health.why_not_ready()
                body = json.dumps({"ok": not why, "reasons": why}).encode() + b"\n"
                self._answer(503 if why else 200, body, "application/json")
            else:
                self._answer(404, b"there are /metrics, /healthz and /readyz\n", _TEXT)

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Requests are not logged."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def handle_error(self, *_: Any) -> None:
            """A client that went away is nobody's fault."""

    try:
        server = Server((address, port), Handler)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"metrics cannot be served at {address}, port {port}: {error}; name another address "
            "or port under 'monitoring' in the study file, or by --metrics-port"
        ) from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_address[1])
