"""How commands print and how they are interrupted."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment
from rich.text import Text

from ..runtime.plain import plain


class _Plain:
    """What is printed, without control characters of data; those of styles and bars stay."""

    def __init__(self, printed: ConsoleRenderable) -> None:
        self._printed = printed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._printed, options):
            text = segment.text if segment.control else plain(segment.text)
            yield Segment(text, segment.style, segment.control)


class _PlainHook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What is printed, in the order of printing."""
        return [_Plain(printed) for printed in renderables]


def _console(**how: Any) -> Console:
    console = Console(**how)
    console.push_render_hook(_PlainHook())
    return console


console = _console()
_notes = _console(stderr=True, soft_wrap=True)


def show(line: str, style: str = "") -> None:
    """Print a line on standard output. It is not read as markup: it may quote a user's text."""
    console.print(Text(line, style=style), soft_wrap=True)


def show_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2))


def note(message: str, style: str = "") -> None:
    """Print a line on standard error."""
    _notes.print(Text(message, style=style))


def warn(message: str) -> None:
    """Print a warning on standard error."""
    _notes.print(Text("warning: ", style="bold yellow") + Text(message))


def error(message: str) -> None:
    """Print an error on standard error."""
    _notes.print(Text("error: ", style="bold red") + Text(message))


@contextmanager
def signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call ``handler`` on SIGTERM and Ctrl-C; the handlers before are restored at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    before = {s: signal.signal(s, handler) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
