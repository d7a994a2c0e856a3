"""Sections to one HTML file that loads nothing else: no network, no second file.

Every name that a user chose passes ``escape``, or stands in JSON whose ``<``, ``>`` and ``&`` are
written as ``\\u003c`` and so on, so that no ``</script>`` can end the script. A content policy also
allows only this package's scripts, by their hashes, and no loading.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html import escape
from pathlib import Path
from typing import Any

from ...errors import MissingExtraError
from ...runtime import places
from ...study.health import Card
from ..data.tables import Table, show
from ..figures.canvas import Key
from ..sections.blocks import Answer, Block, Plot, Section, Sheet, Tile

_PAGE, STYLE, _SCRIPT, _THEME = (
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("page.html", "page.css", "page.js", "theme.js")
)
# Readers must be able to stop a page from reloading itself (WCAG 2.2.1 and 2.2.2).
_PAUSE = '<button type="button" id="pause" aria-pressed="false">Pause refreshing</button>'
# How a page of this package begins, and how its title ends.
_DOCTYPE, _MARK, _HEAD_BYTES = b"<!doctype html", " · HyperZero</title>".encode(), 2**16


def check_place(path: Path, what: str) -> None:
    """Refuse to write a page outside a folder, or over any file but an earlier page.

    So a journal or a study's file is not lost when it is named by mistake.

    Raises:
        ConfigError: the page cannot be written there.
    """
    places.check_place(path, f"the {what} {str(path)!r}", _PAGE_FILE)


def _is_page(content: bytes) -> bool:
    return content.startswith(_DOCTYPE) and _MARK in content[:_HEAD_BYTES]


_PAGE_FILE = places.Kind("a page of this package", _is_page)


def load_plotly() -> str:
    """The source of plotly.js.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtraError("the HTML report", "plotly", "report") from None
    source: str = get_plotlyjs()
    return source


def render(
    study: str,
    subtitle: str,
    sections: list[Section],
    plotly: str,
    reload_every: float | None = None,
) -> str:
    """The whole file; with ``reload_every`` the page reloads itself after so many seconds."""
    figures: list[dict[str, Any]] = []
    body = "\n".join(_section(section, figures) for section in sections)
    # A later plotly.js may contain this text, which would end the script.
    plotly = plotly.replace("</script", "<\\/script")
    script = _filled(_SCRIPT, RELOAD=script_json(reload_every), FIGURES=script_json(figures))
    hashes = " ".join(f"'sha256-{_sha256(source)}'" for source in (_THEME, plotly, script))
    return _filled(
        _PAGE,
        POLICY=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        TITLE=escape(study),
        SUBTITLE=escape(subtitle),
        STYLE=STYLE,
        THEME=_THEME,
        PAUSE="" if reload_every is None else _PAUSE,
        LINKS="".join(f'<a href="#{s.key}">{escape(s.title)}</a>' for s in sections),
        BODY=body,
        PLOTLY=plotly,
        SCRIPT=script,
    )


def _filled(template: str, **parts: str) -> str:
    """A template with its parts in place; names within the parts stay as they are."""
    return re.sub(r"__([A-Z]+)__", lambda match: parts[match[1]], template)


def _section(section: Section, figures: list[dict[str, Any]]) -> str:
    parts = [_block(block, figures) for block in section.blocks]
    # Without its script the page is open throughout.
    head = (
        f'<section id="{section.key}"><h2><button type="button" class="fold" aria-expanded="true" '
        f'aria-controls="{section.key}-blocks">{escape(section.title)}</button></h2>'
    )
    body = "\n".join(parts)
    return f'{head}<div class="blocks" id="{section.key}-blocks">{body}</div></section>'


def _block(block: Block, figures: list[dict[str, Any]]) -> str:
    if isinstance(block, str):
        return f'<p class="wide">{escape(block)}</p>'
    if isinstance(block, list):
        return '<dl class="tiles wide">' + "".join(map(_tile, block)) + "</dl>"
    if isinstance(block, Sheet):
        table = _table(block.table, block.title)
        kind = "sheet wide" if block.is_wide else "sheet"
        return f'<div class="{kind}"><h3>{escape(block.title)}</h3>{table}</div>'
    return _answer(block) if isinstance(block, Answer) else _plot(block, figures)


def _answer(answer: Answer) -> str:
    """The verdict with its reason and the next step, then a card for each part of health."""
    verdict = answer.verdict
    parts = [
        f'<p class="badge"><i>{verdict.state}</i></p>',
        f'<p class="sentence">{escape(verdict.sentence)}</p>',
    ]
    parts += [f"<p>{escape(verdict.why)}</p>"] if verdict.why else []
    parts += [f"<p>Next: {escape(verdict.next_step)}</p>"] if verdict.next_step else []
    cards = "".join(map(_card, answer.health))
    look = "launch" if verdict.action == "launch" else verdict.state
    return (
        f'<div class="verdict wide {look}">{"".join(parts)}</div>'
        f'<ul class="health wide">{cards}</ul>'
    )


def _card(card: Card) -> str:
    what = f"{card.sentence}: {card.advice}" if card.advice else card.sentence
    return (
        f'<li class="{card.state}"><h3><i>{card.state}</i> {escape(card.name)}</h3>'
        f"<p>{escape(what)}</p></li>"
    )


def _tile(tile: Tile) -> str:
    note = f'<dd class="hint">{escape(tile.note)}</dd>' if tile.note else ""
    return f"<div><dt>{escape(tile.label)}</dt><dd>{escape(tile.value)}</dd>{note}</div>"


def _plot(plot: Plot, figures: list[dict[str, Any]]) -> str:
    number = len(figures)
    figures.append(plot.figure)
    height = plot.figure["layout"]["height"]
    style = f"height:{height}px" + (f";min-width:{plot.min_width}px" if plot.min_width else "")
    title = escape(plot.title)
    # Keys can scroll it too, where it is wider than its frame.
    frame = ' tabindex="0"' if plot.min_width else ""
    return (
        f'<figure class="{"wide" if plot.is_wide else "half"}"><figcaption><h3>{title}</h3>'
        f"</figcaption>{_legend(plot.keys)}"
        f'<div class="pan"{frame}><div class="plot" id="plot-{number}" role="img" '
        f'aria-label="{title}; the numbers follow in a table" style="{style}"></div></div>'
        f"<details><summary>Numbers</summary>{_table(plot.table, plot.title)}</details></figure>"
    )


def _legend(keys: tuple[Key, ...]) -> str:
    entries = [
        f'<li><i class="{key.shape}" style="--c:{_css(key.color)}"></i>{escape(key.label)}</li>'
        for key in keys
    ]
    return f'<ul class="legend">{"".join(entries)}</ul>' if entries else ""


def _css(color: str) -> str:
    """A colour for CSS; "@ink" is the variable of that name."""
    return f"var(--{color[1:]})" if color.startswith("@") else color


def _table(table: Table, caption: str) -> str:
    """A table whose first column names its rows."""
    numeric = [column.kind != "text" for column in table.columns]

    def row(cells: list[str], head: bool, is_faded: bool = False) -> str:
        drawn = []
        for i, (is_number, cell) in enumerate(zip(numeric, cells)):
            tag = "th" if head or i == 0 else "td"
            scope = ' scope="col"' if head else ' scope="row"' if i == 0 else ""
            look = " class=n" if is_number else ""
            drawn.append(f"<{tag}{scope}{look}>{escape(cell)}</{tag}>")
        return f"<tr{' class=faded' if is_faded else ''}>{''.join(drawn)}</tr>"

    head = row([column.label for column in table.columns], True)
    rows = [
        row(
            [show(cell, column.kind) for cell, column in zip(cells, table.columns)],
            False,
            number in table.faded,
        )
        for number, cells in enumerate(table.rows)
    ]
    title = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}: numbers"><table>'
        f"<caption>{title}</caption><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
        "</div>"
    )


def script_json(value: Any) -> str:
    """JSON that is safe inside a script; NaN becomes null."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    for raw in "<>&":
        text = text.replace(raw, f"\\u{ord(raw):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple | range):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _sha256(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
