"""Routes that read: studies, status, plan, recommendation, explanation, posterior, history."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request

from ...errors import HyperZeroError, RoundError, StudyNotFoundError
from ...study.authors import author_of
from ...study.history import History
from ...study.journal.times import Times
from ...study.serving import why_control_alone
from ...tuner import frames
from ...tuner.recommend import Criterion
from ...tuner.status import facts_of, switches_of
from ...tuner.tuner import Tuner
from .answers import Json, shown
from .bodies import (
    MAX_NUMBER,
    Answer,
    Page,
    PlanAnswer,
    StudiesAnswer,
    Switches,
    Theta,
)
from .gate import needs
from .studies import Access

router = APIRouter(dependencies=[Depends(needs("read"))], tags=["reading"])
_MOST_ROWS = 1000


async def access_of(  # not async, it would take a thread each time
    request: Request,
    study: Annotated[str, Path(description="The study's id, as GET /v1/studies names it.")],
) -> Access:
    """The study that a path names."""
    studies: dict[str, Access] = request.app.state.studies
    if study not in studies:
        raise HTTPException(404, f"no study {study!r:.80} is served here; see GET /v1/studies")
    return studies[study]


Served = Annotated[Access, Depends(access_of)]
OfRound = Annotated[int | None, Query(ge=0, le=MAX_NUMBER, description="By default the last.")]


@router.get("/v1/studies", response_model=StudiesAnswer)
async def studies(request: Request) -> Json:
    """All studies, with PASS, WATCH or ACT and the verdict in a sentence."""
    every: dict[str, Access] = request.app.state.studies
    return Json({"studies": await asyncio.gather(*map(glance, every.values()))})


async def glance(access: Access) -> dict[str, Any]:
    """A study at a glance; one that cannot be read says why."""
    try:
        snapshot = await access.snapshot()
    except HyperZeroError as error:
        return {
            "id": access.key,
            "name": access.place.name,
            "state": "WATCH" if isinstance(error, StudyNotFoundError) else "ACT",
            "sentence": shown(error),
            "last_round": None,
            "mode": None,
        }
    return {
        "id": access.key,
        "name": snapshot.name,
        "state": snapshot.state,
        "sentence": snapshot.verdict.sentence,
        "last_round": snapshot.last_round,
        "mode": snapshot.mode,
    }


@router.get("/v1/studies/{study}/status", response_model=Answer)
async def status(access: Served) -> Json:
    """The status, with the keys of 'hyperzero status --json'."""

    def facts(tuner: Tuner) -> dict[str, Any]:
        tuner.study.sync()
        return facts_of(tuner)

    result, _ = await access.read(facts)
    return Json(result)


@router.get("/v1/studies/{study}/plan", response_model=PlanAnswer)
async def plan(access: Served, round: OfRound = None) -> Json:
    """What is to be served: the last approved plan, or the control alone where a switch says so.

    With 'round' the plan of that round as it was made.
    """

    def read(tuner: Tuner) -> dict[str, Any]:
        history = tuner.study.sync()
        wanted = history.last_round if round is None else round
        if wanted is None:
            raise RoundError("no round was planned yet; ask for the first plan")
        if wanted not in history.plans:
            raise RoundError(f"round {wanted} was never planned; the last is {history.last_round}")
        made = tuner.study.plan(wanted)
        is_served = round is not None or why_control_alone(history) is None
        return made.to_dict() if is_served else made.control_alone()

    result, _ = await access.read(read)
    return Json(result)


@router.get("/v1/studies/{study}/recommend", response_model=Answer)
async def recommend(access: Served, criterion: Criterion = "lcb", proven: bool = False) -> Json:
    """The candidate to promote and its estimates; candidate 0 means: keep the base."""
    best, warnings = await access.read(lambda tuner: tuner.recommend(criterion, proven))
    return Json({**best.to_dict(), "warnings": warnings})


@router.get("/v1/studies/{study}/explain", response_model=Answer)
async def explain(access: Served, round: OfRound = None) -> Json:
    """Why each arm of a round got its traffic, with the model as it was then."""
    explanation, _ = await access.read(lambda tuner: tuner.explain(round))
    return Json(explanation.to_dict())


@router.post("/v1/studies/{study}/posterior", response_model=Answer)
async def posterior(access: Served, body: Theta) -> Json:
    """Posterior mean and variance of the deltas at any parameters."""

    def estimate(tuner: Tuner) -> dict[str, Any]:
        mean, var = tuner.posterior(body.parameters)
        return {
            "metrics": list(tuner.problem.metrics),
            "mean": mean.tolist(),
            "var": var.tolist(),
        }

    result, _ = await access.read(estimate)
    return Json(result)


@router.get("/v1/studies/{study}/history", response_model=Page)
async def history(
    access: Served,
    what: Literal["decisions", "rounds", "candidates", "readings"] = "decisions",
    kind: Annotated[str | None, Query(max_length=100, description="Of decisions.")] = None,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="Rows to leave out.")] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST_ROWS)] = 100,
) -> Json:
    """The history in pages, oldest first; go on with 'after' = 'next'."""

    def read(tuner: Tuner) -> tuple[list[dict[str, Any]], int]:
        rows = rows_of(tuner.study.sync(), access.times(tuner), what, kind)
        return [row() for row in rows[after : after + limit]], len(rows)

    (rows, total), _ = await access.read(read)
    following = after + len(rows)
    return Json({"rows": rows, "total": total, "next": following if following < total else None})


def rows_of(history: History, times: Times, what: str, kind: str | None) -> list[Any]:
    """The rows of a table as functions, so that only those of a page are made."""
    if what == "decisions":
        chosen = [(n, d) for n, d in enumerate(history.decisions) if kind is None or d.kind == kind]
        return [
            lambda n=n, d=d: {
                "round": d.round,
                "kind": d.kind,
                "reason": d.reason,
                "by": author_of(d),
                "at": times.decided[n] if n < len(times.decided) else None,
            }
            for n, d in chosen
        ]
    if what == "candidates":
        stopped = history.status.stopped
        return [
            lambda c=c: {
                "candidate": c.candidate,
                "round": c.round,
                "origin": c.origin,
                "parameters": dict(c.parameters),
                "stopped": c.candidate in stopped,
            }
            for c in history.candidates
        ]
    table = frames.PLAIN["rounds" if what == "rounds" else "readings"](history, times)
    columns = {c.name: c.values if isinstance(c.values, list) else c.values.tolist() for c in table}
    names = list(columns)
    return [lambda row=row: dict(zip(names, row)) for row in zip(*columns.values())]


@router.get("/v1/studies/{study}/switches", response_model=Switches)
async def switches(access: Served) -> Json:
    """The switches as they stand."""
    result, _ = await access.read(lambda tuner: switches_of(tuner.study.sync()))
    return Json(result)
