"""HTML from plain values. Every text passes ``escape``; control characters do not get through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as _escape

from ....runtime.plain import plain
from ..gate import Session
from ..tokens import Caller


def escape(text: object) -> str:
    """A text for HTML, also for attributes."""
    return _escape(plain(str(text)).encode("utf-8", "replace").decode())


def document(title: str, body: str, session: Session | None = None, feed: str = "") -> str:
    """A whole page.

    Args:
        title: in plain text.
        body: HTML.
        session: of who sees it; None before the login.
        feed: address of the live updates; empty for none.
    """
    who = "" if session is None else _who(session.caller, session.form_key)
    fault = '<p id="fault" class="fault" role="alert"></p>' if feed else ""
    live = f' data-feed="{escape(feed)}"' if feed else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)} · HyperZero</title>"
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/page.css">'
        '<script src="/static/live.js" defer></script></head>'
        f'<body{live}><a class="skip" href="#main">Skip to the content</a>'
        '<header><div class="top"><nav aria-label="Pages"><a href="/">Studies</a>'
        f'<a href="/docs">API</a></nav><div class="tools">{who}</div></div>'
        f'<h1>{escape(title)}</h1>{fault}</header><main id="main">{body}</main></body></html>\n'
    )


def _who(caller: Caller, form_key: str) -> str:
    return (
        f'<span class="who">{escape(caller.name)} ({caller.role})</span>'
        f'<form method="post" action="/logout">{hidden("key", form_key)}'
        '<button type="submit">Log out</button></form>'
    )


def hidden(name: str, value: object) -> str:
    """A field that is not shown."""
    return f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()
) -> str:
    """A table; ``rows`` are HTML, the first cell names its row.

    Args:
        caption: for screen readers.
        columns: titles.
        rows: of cells that are HTML already.
        numeric: columns of numbers.
    """
    heads = "".join(
        f'<th scope="col"{_look(i in numeric)}>{escape(name)}</th>'
        for i, name in enumerate(columns)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row"{_look(i in numeric)}>{cell}</th>'
            if i == 0
            else f"<td{_look(i in numeric)}>{cell}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _look(is_number: bool) -> str:
    return ' class="n"' if is_number else ""


def when(at: str) -> str:
    """A time of a journal, to the minute, which a browser can read too; empty where unknown."""
    if not at:
        return ""
    shown = at.replace("T", " ")[:16]
    return f'<time datetime="{escape(at)}">{escape(shown)} UTC</time>'


def percent(value: float, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return f"{100 * value:.{digits}f} %"
