"""Live views: one look at each journal for all viewers, and one rendering for each change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress

from starlette.exceptions import HTTPException

from ...errors import HyperZeroError
from .answers import shown
from .snapshot import Snapshot
from .studies import Access

#: Viewers at once.
_MOST_VIEWERS = 500
_HEARTBEAT_SECONDS = 15.0
_BACK_OFF = 5.0
_END = ""


class Viewers:
    """Who watches which study.

    Args:
        studies: that are served.
        look_every: seconds between two looks at a journal.
    """

    def __init__(self, studies: Mapping[str, Access], look_every: float) -> None:
        self._studies, self._look_every = studies, look_every
        self._queues: dict[str, set[asyncio.Queue[str]]] = {key: set() for key in studies}
        self._lookouts: dict[str, asyncio.Task[None]] = {}
        self._openings: list[asyncio.Task[None]] = []
        self._rendered: dict[str, tuple[int, str]] = {}
        self._faults: dict[str, str] = {}

    def open_all(self) -> None:
        """Begin to read all studies, so that the first page has not to wait for it."""
        self._openings = [asyncio.create_task(_open(a)) for a in self._studies.values()]

    def end(self) -> None:
        """End all views; their browsers ask again."""
        for queues in self._queues.values():
            for queue in queues:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(_END)

    async def close(self) -> None:
        """End all views, and all looks at journals."""
        self.end()
        tasks = [*self._lookouts.values(), *self._openings]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def view(
        self,
        key: str,
        since: int,
        render: Callable[[Snapshot], Mapping[str, str]],
        is_allowed: Callable[[], bool] = lambda: True,
    ) -> AsyncIterator[str]:
        """What a viewer of a study is sent, as server-sent events.

        Args:
            key: of the study.
            since: the version that the viewer has.
            render: the parts of the page by the ids of their elements.
            is_allowed: false once the viewer's session has ended.
        Raises:
            HTTPException: too many watch.
        """
        if sum(map(len, self._queues.values())) >= _MOST_VIEWERS:
            raise HTTPException(429, "too many viewers; the page works without live updates")
        return self._events(key, since, render, is_allowed)

    async def _events(
        self,
        key: str,
        since: int,
        render: Callable[[Snapshot], Mapping[str, str]],
        is_allowed: Callable[[], bool],
    ) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        self._queues[key].add(queue)
        if key not in self._lookouts or self._lookouts[key].done():
            self._lookouts[key] = asyncio.create_task(self._look(key, since, render))
        elif key in self._faults:
            queue.put_nowait(self._faults[key])
        elif key in self._rendered and self._rendered[key][0] > since:
            queue.put_nowait(self._rendered[key][1])
        try:
            yield "retry: 3000\n\n"
            while True:
                text = ": still here\n\n"
                with suppress(TimeoutError):
                    text = await asyncio.wait_for(queue.get(), _HEARTBEAT_SECONDS)
                if text == _END or not is_allowed():
                    return
                yield text
        finally:
            self._queues[key].discard(queue)

    async def _look(
        self, key: str, since: int, render: Callable[[Snapshot], Mapping[str, str]]
    ) -> None:
        """Look at a journal while somebody watches; send each change to all of them."""
        access = self._studies[key]
        seen: tuple[int, str, tuple[str, ...]] | None = None
        while self._queues[key]:
            wait = self._look_every
            try:
                snapshot = await access.snapshot()
            except HyperZeroError as error:  # a journal may be away for a while
                wait = max(wait, _BACK_OFF)
                if key not in self._faults:
                    self._faults[key] = _fault(f"This page is out of date: {shown(error)}")
                    self._send(key, self._faults[key])
            else:
                states = tuple(card.state for card in snapshot.health)
                now = snapshot.version, snapshot.state, states  # states change by the clock, too
                had_fault = self._faults.pop(key, None) is not None
                changed = snapshot.version != since if seen is None else now != seen
                seen = now
                if changed or had_fault:
                    message = _event(snapshot.version, render(snapshot))
                    self._rendered[key] = snapshot.version, message
                    self._send(key, message)
            await asyncio.sleep(wait)

    def _send(self, key: str, message: str) -> None:
        for queue in self._queues[key]:
            while not queue.empty():  # only the newest counts
                queue.get_nowait()
            queue.put_nowait(message)


async def _open(access: Access) -> None:
    with suppress(HyperZeroError):  # the page says why
        await access.snapshot()


def _fault(text: str) -> str:
    return f"event: fault\ndata: {json.dumps({'text': text})}\n\n"


def _event(version: int, parts: Mapping[str, str]) -> str:
    data = json.dumps({"version": version, "parts": dict(parts)})
    return f"id: {version}\ndata: {data}\n\n"
