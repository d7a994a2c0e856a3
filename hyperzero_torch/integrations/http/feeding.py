"""Routes of platforms: ask for the next plan, and tell readings."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request
from pydantic import AfterValidator, StringConstraints

from ...errors import ReadingsError, RoundError
from ...study.messages import Message
from ...study.readings import COLUMNS, OPTIONAL_COLUMNS, Readings
from ...study.unplanned import Unknown
from ...tuner.tuner import Tuner
from .answers import Json
from .bodies import Ask, Planned, Rows, Told, printable
from .gate import needs
from .reading import Served
from .tokens import Caller

router = APIRouter(tags=["platform"])
#: A round further beyond the last planned one than a week of hours is taken for a typo.
_MAX_GAP = 168
# Bytes that are read within two milliseconds: a thread of their own would take longer.
_SMALL = 32 * 1024
_JSON, _LINES = "application/json", ("application/x-ndjson", "application/jsonl")
Feeder = Annotated[Caller, Depends(needs("feed"))]
MessageId = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(printable)]
    | None,
    Header(
        alias="Idempotency-Key",
        description="The message's id: sent again, it gets the same answer and changes nothing.",
    ),
]


@router.post("/v1/studies/{study}/ask", response_model=Planned)
async def ask(
    access: Served, caller: Feeder, body: Ask | None = None, message_id: MessageId = None
) -> Json:
    """The plan for a round; a round that is planned already keeps its plan.

    The first call starts a study that has not begun.
    """
    wanted = body or Ask()
    trigger = f"{caller.name}: {message_id or secrets.token_hex(8)}"

    def plan(tuner: Tuner) -> dict[str, Any]:
        earlier = tuner.study.planned_for(trigger)
        if earlier is not None:
            return earlier.to_dict()
        last = tuner.history.last_round
        gap = 0 if wanted.round is None or last is None else wanted.round - last
        if gap > _MAX_GAP and not wanted.allow_gap:
            raise RoundError(
                f"round {wanted.round} is {gap} rounds beyond the last planned round {last}, which "
                f"looks like a typo; send allow_gap if it is meant, nothing was planned"
            )
        return tuner.ask(wanted.round, trigger=trigger, by=caller.name).to_dict()

    made, warnings = await access.write(plan, create=True)
    return Json({"plan": made, "warnings": warnings})


_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            _JSON: {"schema": Rows.model_json_schema()},
            _LINES[0]: {"schema": {"type": "string"}},
        },
    }
}


@router.post("/v1/studies/{study}/tell", response_model=Told, openapi_extra=_SCHEMA)
async def tell(
    request: Request,
    access: Served,
    caller: Feeder,
    unknown: Annotated[
        Unknown, Query(description="What to do with rows of rounds that were never planned.")
    ] = "refuse",
    message_id: MessageId = None,
) -> Json:
    """Record readings, whole or not at all; rows that were recorded before change nothing.

    As JSON, {"rows": [{"round": 7, "candidate": 0, "metric": "views", "count": 512, "mean": 3.1,
    "var": 2.2}, ...]}, or as NDJSON with such a row on each line. After the answer they are on the
    disk of the database.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_JSON, *_LINES):
        raise HTTPException(
            415, f"readings are sent as {_JSON} or {_LINES[0]}, got {kind or 'no Content-Type'!r}"
        )
    data = await request.body()
    as_lines = kind != _JSON
    if len(data) <= _SMALL:
        readings, option = _parsed(data, as_lines)
    else:
        readings, option = await asyncio.to_thread(_parsed, data, as_lines)
    digest = hashlib.sha256(data).hexdigest()
    message = Message(readings, caller.name, message_id, digest, option or unknown)
    receipt, warnings = await access.tell(message)
    return Json({**vars(receipt), "warnings": warnings})


def _parsed(data: bytes, as_lines: bool) -> tuple[Readings, Unknown | None]:
    """The readings of a body, and what it says of unknown rounds."""
    if as_lines:
        if not data.lstrip().startswith(b"{"):
            raise ReadingsError("the body is not NDJSON: every line has to be a JSON object")
        return Readings.from_stream(io.BytesIO(data), name="the body"), None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON: {error}; nothing was recorded") from None
    rows = document.get("rows") if isinstance(document, dict) else None
    extra = sorted(set(document) - {"rows", "unknown"}) if isinstance(document, dict) else []
    if not isinstance(rows, list) or extra:
        raise ReadingsError(
            'the body is to be {"rows": [...]} with a JSON object for each row'
            + (f", got the keys {extra[:5]!r} too" if extra else "")
        )
    option = document.get("unknown")
    if option not in (None, "refuse", "skip"):
        raise ReadingsError(f"unknown must be 'refuse' or 'skip', got {option!r:.40}")
    return Readings.from_frame(_columns(rows)), option


def _columns(rows: list[Any]) -> dict[str, list[Any]]:
    """Rows as columns."""
    names = (*COLUMNS, *OPTIONAL_COLUMNS)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ReadingsError(f"row {number} is to be a JSON object, got {row!r:.60}")
        missing = [name for name in COLUMNS if name not in row]
        unknown = [name for name in row if name not in names]
        if missing or unknown:
            raise ReadingsError(
                f"row {number} has to have {list(COLUMNS)} and may have {list(OPTIONAL_COLUMNS)}: "
                f"missing {missing}, unknown {[name[:40] for name in unknown[:5]]}"
            )
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    return columns | {"revision": [row.get("revision", 0) for row in rows]}
