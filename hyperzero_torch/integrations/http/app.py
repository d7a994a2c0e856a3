"""The ASGI application: limits, then who is asking, then the API and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from ...errors import HyperZeroError
from ...runtime import __version__
from . import deciding, feeding, pages, reading
from .answers import Json, on_http_error, on_invalid, on_our_error
from .bodies import Answer, Refused
from .events import Viewers
from .files import Place
from .gate import OPEN, Gate, Sessions
from .limits import BODY_SECONDS, FAILURES, MAX_BODY, RATE, Limits, Rate
from .studies import Access
from .tokens import TokenFile

_ABOUT = """Ask for plans, tell readings, read what is recommended and why, and decide.

Every call but /healthz and this document needs a token: `Authorization: Bearer hz_...`, as
`hyperzero serve token add NAME --role ROLE` makes it. A refused request has changed nothing; its
answer is `{"error": {"kind": ..., "message": ...}}`. 409 means that the study stands otherwise than
the request expects, and 503 that the journal is away: send it again.
"""
#: What any call may be refused with.
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refused, "description": what}
    for status, what in (
        (400, "Not understood"),
        (401, "No token, or an unknown one"),
        (403, "The role does not allow it"),
        (404, "No such study"),
        (408, "The body was not here in time"),
        (409, "The study stands otherwise"),
        (413, "Too large"),
        (415, "Of another media type"),
        (422, "Not valid"),
        (429, "Too many requests"),
        (503, "The journal is away; send it again"),
    )
}


def create_app(
    places: Sequence[Place],
    tokens: TokenFile,
    *,
    rate: float = RATE,
    max_body: int = MAX_BODY,
    body_seconds: float = BODY_SECONDS,
    look_every: float = 1.0,
) -> FastAPI:
    """The application over these studies.

    Args:
        places: the studies.
        tokens: who may do what.
        rate: requests a second of one client.
        max_body: bytes of a body.
        body_seconds: in which a body has to be here.
        look_every: seconds between two looks at a journal while somebody watches.
    """
    studies = {place.key: Access(place) for place in places}
    viewers = Viewers(studies, look_every)
    sessions = Sessions(tokens)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        viewers.open_all()
        yield
        await viewers.close()
        for access in studies.values():
            access.close()

    app = FastAPI(
        title="HyperZero Torch",
        version=__version__,
        description=_ABOUT,
        docs_url=None,  # these pages would load scripts from another host
        redoc_url=None,
        lifespan=lifespan,
        responses=_REFUSALS,
    )
    app.state.studies, app.state.viewers = studies, viewers
    app.state.tokens, app.state.sessions = tokens, sessions
    app.state.failures = Rate(FAILURES / 60, FAILURES)
    for router in (reading.router, feeding.router, deciding.router, pages.router):
        app.include_router(router)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", response_model=Answer, tags=["reading"])
    async def healthz() -> Json:
        """Whether the server answers."""
        return Json({"ok": True})

    app.add_exception_handler(HyperZeroError, on_our_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_middleware(Gate, tokens=tokens, sessions=sessions, failures=app.state.failures)
    app.add_middleware(Limits, rate=rate, max_body=max_body, seconds=body_seconds)
    app.openapi = lambda: _described(app)
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the tokens that calls need."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        for path, methods in document["paths"].items():
            for method in methods.values():
                method["security"] = [] if path in OPEN else [{"token": []}]
        app.openapi_schema = document
    described: dict[str, Any] = app.openapi_schema
    return described
