"""Errors and values as JSON: one message for each error, and no number that JSON does not have."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ...errors import (
    DeviceMemoryError,
    FencedError,
    FitError,
    ForeignJournalError,
    GivenUpError,
    HyperZeroError,
    InputError,
    JournalCorruptError,
    JournalError,
    LaunchError,
    MissingExtraError,
    RoundError,
    StudyMismatchError,
    StudyNotFoundError,
)
from ...study.journal.base import ConflictError

# The first that fits. What a client can repair is a 4xx; a journal that is away is tried again.
_STATUS: tuple[tuple[type[HyperZeroError], int], ...] = (
    (StudyNotFoundError, 404),
    (RoundError, 409),
    (LaunchError, 409),
    (StudyMismatchError, 409),
    (ConflictError, 409),
    (FencedError, 409),
    (FitError, 409),
    (ForeignJournalError, 409),
    (JournalCorruptError, 409),
    (InputError, 422),
    (MissingExtraError, 409),
    (JournalError, 503),
    (GivenUpError, 503),
    (DeviceMemoryError, 503),
)
_MOST_FAULTS = 10
#: The folders of an absolute path, also in a SQLite URL, but not the host of another URL.
_FOLDERS = re.compile(r"(?<![\w.])(?<!:/)/(?:[^\s'\"/:;,@]+/)+(?=[^\s'\"/])")
_NAMES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "Timeout",
    411: "LengthRequired",
    413: "TooLarge",
    415: "UnsupportedMediaType",
    422: "InvalidRequest",
    429: "TooManyRequests",
}


class Json(Response):
    """A JSON response in ASCII: NaN and infinities are null, and any text can be sent."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(finite(content), allow_nan=False, separators=(",", ":")).encode() + b"\n"


def finite(value: Any) -> Any:
    """A value with None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def refusal(
    status: int, message: str, kind: str | None = None, headers: Mapping[str, str] | None = None
) -> Json:
    """An error as JSON: ``{"error": {"kind": ..., "message": ...}}``."""
    name = kind or _NAMES.get(status, "Error")
    content = {"error": {"kind": name, "message": message}}
    return Json(content, status_code=status, headers=dict(headers or {}))


def shown(error: HyperZeroError) -> str:
    """The message of an error without the folders of this machine, which are nobody's matter."""
    return _FOLDERS.sub("", str(error))


def status_of(error: HyperZeroError) -> int:
    """The status of an error of this package."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 409)


def words_of(fault: Mapping[str, Any]) -> str:
    """What pydantic says of a fault, or what our own check said."""
    return str(fault["msg"]).removeprefix("Value error, ")


async def on_our_error(_: Request, error: Exception) -> Response:
    """An error of this package as JSON."""
    if not isinstance(error, HyperZeroError):
        raise error
    status = status_of(error)
    headers = {"Retry-After": "5"} if status == 503 else {}
    return refusal(status, shown(error), type(error).__name__, headers)


async def on_http_error(_: Request, error: Exception) -> Response:
    """An error of HTTP as JSON."""
    if not isinstance(error, HTTPException):
        raise error
    return refusal(error.status_code, str(error.detail), headers=error.headers)


async def on_invalid(_: Request, error: Exception) -> Response:
    """A request that does not fit its schema, in one message that names each place."""
    if not isinstance(error, RequestValidationError):
        raise error
    faults = error.errors()
    lines = [
        f"{'.'.join(map(str, fault['loc']))}: {words_of(fault)}"[:300]
        for fault in faults[:_MOST_FAULTS]
    ]
    more = len(faults) - _MOST_FAULTS
    lines += [f"and {more} more"] if more > 0 else []
    return refusal(422, f"the request is not valid, nothing was changed: {'; '.join(lines)}")
