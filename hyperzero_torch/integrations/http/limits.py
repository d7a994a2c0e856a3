"""Limits of every request: its size, its time, its rate; and headers of every response."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answers import refusal

#: Bytes of a body; a message of 100 rows has about 10,000.
MAX_BODY = 8 * 2**20
#: Seconds in which a body has to be here.
BODY_SECONDS = 30.0
#: Requests a second of one client, over some seconds, and failed tokens a minute of one address.
RATE, BURST_SECONDS, FAILURES = 500.0, 4.0, 20.0
_MOST_CLIENTS = 4096
#: Nothing is loaded from elsewhere, and the page is in no other page's frame.
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' "
    "data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)


class Rate:
    """So many events a second on average, by key; some at once.

    Args:
        rate: events a second.
        burst: events at once.
        now: the clock, in seconds.
    """

    def __init__(
        self, rate: float, burst: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst, self._now = rate, burst, now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def left(self, key: str) -> float:
        """Events that may come now."""
        count, at = self._left.get(key, (self.burst, self._now()))
        return min(self.burst, count + (self._now() - at) * self.rate)

    def take(self, key: str) -> bool:
        """Whether one more may come; it then counts."""
        left = self.left(key)
        if left < 1:
            return False
        self._left[key] = (left - 1, self._now())
        self._left.move_to_end(key)
        while len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return True


class Limits:
    """Takes in the whole body before anything is done with it, and refuses what is too much.

    Args:
        app: the application.
        rate: requests a second of one client.
        max_body: bytes.
        seconds: in which a body has to be here.
    """

    def __init__(
        self,
        app: ASGIApp,
        rate: float = RATE,
        max_body: int = MAX_BODY,
        seconds: float = BODY_SECONDS,
    ) -> None:
        self._app, self._max_body, self._seconds = app, max_body, seconds
        self._rate = Rate(rate, max(1.0, rate * BURST_SECONDS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = _with_headers(send)
        if not self._rate.take(client_of(scope)):
            message = "too many requests; wait a second and send them more slowly"
            await refusal(429, message, headers={"Retry-After": "1"})(scope, receive, sent)
            return
        limit = (
            f"the body is larger than {self._max_body} bytes; send it in parts, nothing was changed"
        )
        if _declared(scope) > self._max_body:
            await refusal(413, limit)(scope, receive, sent)
            return
        try:
            body = await asyncio.wait_for(self._body(receive), self._seconds)
        except TimeoutError:
            message = f"the body was not here within {self._seconds:g} s; nothing was changed"
            await refusal(408, message)(scope, receive, sent)
            return
        if body is None:  # the client went away within its request
            return
        if len(body) > self._max_body:
            await refusal(413, limit)(scope, receive, sent)
            return
        await self._app(scope, _replayed(body, receive), sent)

    async def _body(self, receive: Receive) -> bytes | None:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if not message.get("more_body", False) or size > self._max_body:
                return b"".join(parts)


def client_of(scope: Scope) -> str:
    """The address of a client."""
    client = scope.get("client")
    return client[0] if client else "unknown"


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message.get("headers", ())}
            added = [pair for pair in _HEADERS if pair[0] not in present]
            if b"cache-control" not in present:
                added.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sent
