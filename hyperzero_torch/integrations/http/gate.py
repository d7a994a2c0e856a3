"""Who is asking: a bearer token, or a browser's session that began with one.

Sessions are in memory and end with the server, with their token, or after a day. A browser sends
its cookie with requests that other pages make too, so whatever changes something by a cookie needs
a second secret that only our own pages hold, and has to come from our own pages.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ...errors import ConfigError
from .answers import refusal
from .limits import Rate, client_of
from .tokens import Caller, Right, TokenFile

COOKIE = "hyperzero_session"
_SESSION_SECONDS = 24 * 3600.0
_MOST_SESSIONS = 10_000
#: What is answered to everybody.
OPEN = ("/healthz", "/openapi.json", "/login")
_OPEN_FOLDER = "/static/"
_API = "/v1/"
TOO_MANY_FAILURES = "too many wrong tokens from this address, and this one is not known either"


@dataclass(frozen=True)
class Session:
    """A browser that has shown a token."""

    caller: Caller
    form_key: str
    ends: float


class Sessions:
    """The sessions of a server.

    Args:
        tokens: a session lasts no longer than its token.
        now: the clock, in seconds.
    """

    def __init__(self, tokens: TokenFile, now: Callable[[], float] = time.time) -> None:
        self._tokens, self._now = tokens, now
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self, caller: Caller) -> str:
        """Begin a session; returns the cookie's value."""
        key = secrets.token_urlsafe(32)
        ends = self._now() + _SESSION_SECONDS
        self._sessions[key] = Session(caller, secrets.token_urlsafe(32), ends)
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return key

    def find(self, key: str) -> Session | None:
        """The session of a cookie; None where there is none any more."""
        session = self._sessions.get(key)
        if session is None:
            return None
        if session.ends < self._now() or not self._tokens.is_still(session.caller):
            del self._sessions[key]
            return None
        return session

    def end(self, key: str) -> None:
        """End a session."""
        self._sessions.pop(key, None)


class Gate:
    """Lets requests pass that say who is asking.

    Args:
        app: the application.
        tokens: of the server.
        sessions: of browsers.
        failures: wrong tokens by address.
    """

    def __init__(self, app: ASGIApp, tokens: TokenFile, sessions: Sessions, failures: Rate) -> None:
        self._app, self._tokens, self._sessions = app, tokens, sessions
        self._failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        path = scope.get("path", "")
        is_open = path in OPEN or path.startswith(_OPEN_FOLDER)
        if scope["type"] != "http" or is_open:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        secret = _bearer(headers)
        try:
            caller, session = self._who(secret, headers)
        except ConfigError as error:
            await refusal(503, str(error), headers={"Retry-After": "5"})(scope, receive, send)
            return
        if caller is None:
            # Known tokens pass all the same: many people may share the address of a proxy.
            if secret is not None and not self._failures.take(client_of(scope)):
                answer = refusal(429, TOO_MANY_FAILURES, headers={"Retry-After": "60"})
                await answer(scope, receive, send)
                return
            await self._refuse(scope, receive, send, secret is not None)
            return
        scope.setdefault("state", {})
        scope["state"] |= {"caller": caller, "session": session}
        await self._app(scope, receive, send)

    def _who(self, secret: str | None, headers: Headers) -> tuple[Caller | None, Session | None]:
        if secret is not None:
            return self._tokens.caller(secret), None
        key = cookie_of(headers)
        session = None if key is None else self._sessions.find(key)
        return (None, None) if session is None else (session.caller, session)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, was_given: bool) -> None:
        path = scope["path"]
        if not path.startswith(_API) and scope["method"] in ("GET", "HEAD") and not was_given:
            await RedirectResponse(f"/login?next={quote(path)}", 303)(scope, receive, send)
            return
        message = (
            "this token is not known; ask whoever runs the server for one"
            if was_given
            else "say who you are: send a token as 'Authorization: Bearer hz_...'"
        )
        await refusal(401, message, headers={"WWW-Authenticate": "Bearer"})(scope, receive, send)


def caller_of(request: Request) -> Caller:
    """Who is asking."""
    caller: Caller = request.state.caller
    return caller


def session_of(request: Request) -> Session | None:
    """The browser's session; None for a program."""
    session: Session | None = request.state.session
    return session


def needs(right: Right) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency that refuses callers whose role does not allow it.

    Args:
        right: that is needed.
    """

    async def check(request: Request) -> Caller:  # not async, it would take a thread each time
        caller = caller_of(request)
        if not caller.may(right):
            raise HTTPException(403, refused(caller, right))
        if request.method not in ("GET", "HEAD") and session_of(request) is not None:
            raise HTTPException(403, "the API takes changes by a token only, not by a session")
        return caller

    return check


def refused(caller: Caller, right: Right) -> str:
    """Why a role does not allow it, in a sentence."""
    what = {
        "read": "read",
        "feed": "ask for plans and tell readings (role platform)",
        "operate": "throw switches (role operator or approver)",
        "decide": "approve, launch and change goals (role approver)",
    }[right]
    return f"{caller.name} has the role {caller.role}, which may not {what}; nothing was changed"


def check_form(request: Request, form_key: str) -> Caller:
    """Refuse a form that was not sent from a page of this server in this session.

    Raises:
        HTTPException: it was not.
    """
    check_origin(request)
    session = session_of(request)
    if session is None or not hmac.compare_digest(session.form_key.encode(), form_key.encode()):
        raise HTTPException(403, "this form is from another session; open the page again")
    return session.caller


def check_origin(request: Request) -> None:
    """Refuse what a page of another host sends.

    Browsers say in ``Sec-Fetch-Site`` whether it is another host's, which no page can change. Old
    ones, and all of them over plain HTTP to another machine, name the page's host alone.

    Raises:
        HTTPException: another host's page sent it.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if origin == "null" or site not in (None, "same-origin", "none"):
        raise HTTPException(403, "this form was sent by a page of another host; nothing was done")
    host = request.headers.get("host")
    if site is None and origin is not None and urlsplit(origin).netloc != host:
        raise HTTPException(
            403,
            f"this form was sent by a page of {origin!r:.100}, and the server was asked as "
            f"{host!r:.100}; nothing was done. Behind a proxy, let it pass on the header Host",
        )


def cookie_of(headers: Headers) -> str | None:
    """The session's cookie; None where there is none."""
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return None
    morsel = cookies.get(COOKIE)
    return None if morsel is None else morsel.value


def _bearer(headers: Headers) -> str | None:
    """The secret of the request; None where it names none."""
    given = headers.get("authorization")
    if given is None:
        return None
    scheme, _, secret = given.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""
