"""The addresses of the page."""

from __future__ import annotations

import asyncio
import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import TypeAdapter, ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from ...errors import HyperZeroError, StudyNotFoundError
from ...report.html.page import STYLE
from ...tuner.tuner import Tuner
from .answers import shown, status_of, words_of
from .bodies import MAX_NUMBER, Reason
from .gate import (
    COOKIE,
    TOO_MANY_FAILURES,
    Session,
    check_form,
    check_origin,
    refused,
    session_of,
)
from .limits import client_of
from .page import reference, views
from .page.actions import ACTIONS, Given, panel
from .page.markup import document, escape, hidden
from .reading import Served, glance
from .snapshot import DecisionRow, decision_rows
from .studies import Access

router = APIRouter(include_in_schema=False)
_FOLDER = Path(__file__).with_name("page")
_PAGE_ROWS = 50
_reason = TypeAdapter(Reason)
_OK = {"pause", "resume", *ACTIONS}


@router.get("/static/{name}")
async def static(name: str, request: Request) -> Response:
    """The style and the script, which a browser keeps as long as they are the same."""
    if name not in ("page.css", "live.js"):
        raise HTTPException(404, "there is no such file")
    content, mark = _file(name)
    headers = {"Cache-Control": "no-cache", "ETag": mark}
    if request.headers.get("if-none-match") == mark:
        return Response(status_code=304, headers=headers)
    kind = "text/css" if name.endswith(".css") else "text/javascript"
    return Response(content, headers=headers, media_type=f"{kind}; charset=utf-8")


@cache
def _file(name: str) -> tuple[str, str]:
    own = (_FOLDER / name).read_text(encoding="utf-8")
    content = STYLE + own if name.endswith(".css") else own
    return content, f'"{hashlib.sha256(content.encode()).hexdigest()[:16]}"'


@router.get("/login")
async def login_form(request: Request, next: str = "/") -> Response:
    """The page that asks for a token."""
    return _login(next)


def _login(next_page: str, fault: str = "", status: int = 200) -> Response:
    alert = f'<p class="fault" role="alert">{escape(fault)}</p>' if fault else ""
    body = (
        f'{alert}<form class="login" method="post" action="/login">{hidden("next", next_page)}'
        '<label>Token <input type="password" name="token" required autofocus '
        'autocomplete="current-password"></label><button type="submit">Log in</button></form>'
        "<p>Whoever runs this server makes one with 'hyperzero serve token add'.</p>"
    )
    return HTMLResponse(document("Log in", body), status)


@router.post("/login")
async def login(request: Request) -> Response:
    """Begin a session."""
    check_origin(request)
    form = await _form(request)
    caller = request.app.state.tokens.caller(form.get("token", "").strip())
    if caller is None:
        if not request.app.state.failures.take(client_of(request.scope)):
            return _login(form.get("next", "/"), TOO_MANY_FAILURES, 429)
        return _login(form.get("next", "/"), "this token is not known", 401)
    target = form.get("next", "/")
    is_ours = target.startswith("/") and not target.startswith(("//", "/\\"))
    answer = RedirectResponse(quote(target, safe="/?=&%") if is_ours else "/", 303)
    answer.set_cookie(
        COOKIE,
        request.app.state.sessions.begin(caller),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return answer


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End a session."""
    form = await _form(request)
    check_form(request, form.get("key", ""))
    request.app.state.sessions.end(request.cookies.get(COOKIE, ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/")
    return answer


@router.get("/")
async def overview(request: Request) -> Response:
    """All studies at a glance."""
    session = _session(request)
    every: dict[str, Access] = request.app.state.studies
    rows = await asyncio.gather(*map(glance, every.values()))
    return HTMLResponse(document("Studies", views.glances(rows), session))


@router.get("/docs")
async def api(request: Request) -> Response:
    """The API, call by call."""
    body = reference.body(request.app.openapi())
    return HTMLResponse(document("API", body, session_of(request)))


@router.get("/studies/{study}")
async def study_page(
    request: Request, access: Served, done: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """One study."""
    note = ""
    if done in _OK:
        sentence = f"{ACTIONS[done].label}: it is in the journal, with your name and reason."
        note = f'<p class="done" role="status">{escape(sentence)}</p>'
    return await _study(access, _session(request), note)


async def _study(access: Access, session: Session, note: str, status: int = 200) -> Response:
    try:
        snapshot = await access.snapshot()
    except HyperZeroError as error:
        is_new = isinstance(error, StudyNotFoundError)  # the page says how it begins
        answered = status if status != 200 or is_new else status_of(error)
        text = note + _fault(shown(error))
        return HTMLResponse(document(access.place.name, text, session), answered)
    parts = views.parts(snapshot)
    key = escape(access.key)

    def part(name: str, title: str, content: str) -> str:
        heading = f'<h2 id="{name}-title">{title}</h2>'
        return f'<section aria-labelledby="{name}-title">{heading}{content}</section>'

    def live(name: str) -> str:
        return f'<div id="{name}">{parts[name]}</div>'

    more = f'<p><a href="/studies/{key}/journal">All decisions, with filters</a></p>'
    body = (
        f'{note}<div id="verdict" aria-live="polite">{parts["verdict"]}</div>'
        + part("actions", "Act", f'<div id="actions">{panel(snapshot, session)}</div>')
        + part("health", "Health", live("health"))
        + part("traffic", "Traffic", live("traffic"))
        + part("best", "P(best) over time", live("best"))
        + part("recent", "Decisions", live("recent") + more)
        + part("rounds", "Rounds", live("rounds"))
    )
    feed = f"/studies/{key}/events?since={snapshot.version}"
    return HTMLResponse(document(snapshot.name, body, session, feed), status)


@router.get("/studies/{study}/actions")
async def actions(request: Request, access: Served) -> Response:
    """The forms of the actions, for a page that has changed."""
    return HTMLResponse(panel(await access.snapshot(), _session(request)))


@router.get("/studies/{study}/events")
async def events(
    request: Request, access: Served, since: Annotated[int, Query(ge=0, le=MAX_NUMBER)] = 0
) -> Response:
    """The changes of a study, as server-sent events."""
    sessions, key = request.app.state.sessions, request.cookies.get(COOKIE, "")
    caller = _session(request).caller

    def is_allowed() -> bool:
        session = sessions.find(key)
        return session is not None and session.caller == caller

    stream = request.app.state.viewers.view(access.key, since, views.parts, is_allowed)
    return StreamingResponse(stream, media_type="text/event-stream")


@router.post("/studies/{study}/do/{action}")
async def act(request: Request, access: Served, action: str) -> Response:
    """Take an action with its reason; then show the study, or what is wrong."""
    form = await _form(request)
    caller = check_form(request, form.get("key", ""))
    session = _session(request)
    if action not in ACTIONS:
        raise HTTPException(404, f"there is no action {action!r:.40}")
    wanted = ACTIONS[action]
    if not caller.may(wanted.right):
        return await _study(access, session, _fault(refused(caller, wanted.right)), 403)
    try:
        given = _given(form)
        await access.write(lambda tuner: wanted.take(access, tuner, given, caller))
    except ValidationError as error:
        sentence = f"the reason: {words_of(error.errors()[0])}; nothing was changed"
        return await _study(access, session, _fault(sentence), 422)
    except ValueError as error:
        status = status_of(error) if isinstance(error, HyperZeroError) else 422
        text = shown(error) if isinstance(error, HyperZeroError) else str(error)
        return await _study(access, session, _fault(text), status)
    except HyperZeroError as error:
        return await _study(access, session, _fault(shown(error)), status_of(error))
    return RedirectResponse(f"/studies/{quote(access.key)}?done={action}", 303)


def _given(form: dict[str, str]) -> Given:
    reason = _reason.validate_python(form.get("reason", ""))
    candidate = form.get("candidate", "").strip()
    percent = form.get("percent", "").strip()
    if candidate and (not candidate.isascii() or not candidate.isdigit() or len(candidate) > 9):
        raise ValueError("a candidate is named by its number; nothing was changed")
    try:
        share = float(percent) / 100 if percent else None
    except ValueError:
        raise ValueError(
            f"the share is a number of percent, as 5 or 2.5, got {percent!r:.40}; nothing was "
            "changed"
        ) from None
    return Given(reason, int(candidate) if candidate else None, share)


def _fault(text: str) -> str:
    return f'<p class="fault" role="alert">{escape(text)}</p>'


@router.get("/studies/{study}/journal")
async def journal(
    request: Request,
    access: Served,
    kind: Annotated[str, Query(max_length=100)] = "",
    words: Annotated[str, Query(max_length=200)] = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """All decisions and remarks, with filters and pages."""
    session = _session(request)

    def read(tuner: Tuner) -> tuple[list[DecisionRow], list[str]]:
        history = tuner.study.sync()
        times = access.times(tuner)
        skip = (page - 1) * _PAGE_ROWS
        rows = decision_rows(history, times, kind, words, skip, _PAGE_ROWS + 1)
        return rows, sorted({decision.kind for decision in history.decisions})

    (rows, kinds), _ = await access.read(read)
    options = "".join(
        f'<option value="{escape(name)}"{" selected" if name == kind else ""}>{escape(name)}'
        "</option>"
        for name in kinds
    )
    key = escape(access.key)
    filters = (
        f'<form class="filters" method="get" action="/studies/{key}/journal"><label>What '
        f'<select name="kind"><option value="">everything</option>{options}</select></label>'
        f'<label>Words <input type="search" name="words" value="{escape(words)}" maxlength="200">'
        '</label><button type="submit">Filter</button></form>'
    )
    links = []
    chosen = f"kind={quote(kind, safe='')}&words={quote(words.encode('utf-8', 'replace'), safe='')}"
    for number, label, is_there in (
        (page - 1, "Newer", page > 1),
        (page + 1, "Older", len(rows) > _PAGE_ROWS),
    ):
        if is_there:
            address = escape(f"/studies/{access.key}/journal?{chosen}&page={number}")
            links.append(f'<a href="{address}">{label}</a>')
    back = f'<p><a href="/studies/{key}">Back to the study</a></p>'
    pages = f'<nav class="pages" aria-label="Pages of decisions">{"".join(links)}</nav>'
    body = back + filters + views.decisions(rows[:_PAGE_ROWS]) + pages
    return HTMLResponse(document(f"Decisions of {access.place.name}", body, session))


def _session(request: Request) -> Session:
    """The browser's session; a token alone opens no page with forms.

    Raises:
        HTTPException: there is none.
    """
    session = session_of(request)
    if session is None:
        raise HTTPException(403, "pages are for browsers: log in at /login; programs use /v1/")
    return session


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "a form is sent as application/x-www-form-urlencoded")
    try:
        fields: dict[str, list[Any]] = parse_qs(
            (await request.body()).decode("utf-8"), keep_blank_values=True, max_num_fields=50
        )
    except ValueError as error:
        raise HTTPException(400, f"the form is not understood: {error}") from None
    return {name: values[-1] for name, values in fields.items()}
