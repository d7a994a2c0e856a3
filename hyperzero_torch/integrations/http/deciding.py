"""Routes of people: switches, launches and goals, each with its reason and who decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from ...errors import ConfigError
from ...study.acceptance import set_aside
from ...study.config import StudyConfig
from ...study.goals import periods
from ...study.study import Study
from ...tuner.status import switches_of
from ...tuner.tuner import Tuner
from .answers import Json, finite
from .bodies import (
    Accepted,
    Answer,
    Goals,
    Launch,
    OfCandidate,
    OfCandidates,
    Pin,
    Promotion,
    RollBack,
    Thrown,
    Why,
)
from .gate import needs
from .reading import Served
from .studies import Access
from .tokens import Caller

router = APIRouter(tags=["decisions"])
Operator = Annotated[Caller, Depends(needs("operate"))]
Approver = Annotated[Caller, Depends(needs("decide"))]
Reader = Annotated[Caller, Depends(needs("read"))]
_TERMS = ("stages", "holdback", "keep_holdback", "tolerance", "alpha", "least_rounds")


async def _throw(access: Access, switch: Callable[[Study], None]) -> Json:
    served, warnings = await access.switch(switch)
    state, _ = await access.read(lambda tuner: switches_of(tuner.study.sync()))
    return Json({"switches": state, "served": served, "warnings": warnings})


@router.post("/v1/studies/{study}/switches/pause", response_model=Thrown)
async def pause(access: Served, caller: Operator, body: Why) -> Json:
    """Freeze the last plan: candidates and their shares stay as they are until 'resume'."""
    return await _throw(access, lambda study: study.pause(body.reason, caller.name))


@router.post("/v1/studies/{study}/switches/withdraw", response_model=Thrown)
async def withdraw(access: Served, caller: Operator, body: Why) -> Json:
    """Give all traffic to the control, at once, until 'resume'."""
    return await _throw(access, lambda study: study.withdraw(body.reason, caller.name))


@router.post("/v1/studies/{study}/switches/resume", response_model=Thrown)
async def resume(access: Served, caller: Operator, body: Why) -> Json:
    """End a pause or a withdrawal."""
    return await _throw(access, lambda study: study.resume(body.reason, caller.name))


@router.post("/v1/studies/{study}/switches/stop", response_model=Thrown)
async def stop(access: Served, caller: Operator, body: OfCandidates) -> Json:
    """Stop candidates, at once, until 'let-back'."""
    return await _throw(access, lambda s: s.stop(body.candidates, body.reason, caller.name))


@router.post("/v1/studies/{study}/switches/let-back", response_model=Thrown)
async def let_back(access: Served, caller: Operator, body: OfCandidates) -> Json:
    """Let stopped candidates be served again."""
    return await _throw(access, lambda s: s.readmit(body.candidates, body.reason, caller.name))


@router.post("/v1/studies/{study}/switches/pin", response_model=Thrown)
async def pin(access: Served, caller: Operator, body: Pin) -> Json:
    """Give a candidate a fixed share of the experiment, from the next plan on."""
    given = (body.candidate, body.share, body.reason)
    return await _throw(access, lambda study: study.pin(*given, caller.name))


@router.post("/v1/studies/{study}/switches/unpin", response_model=Thrown)
async def unpin(access: Served, caller: Operator, body: OfCandidate) -> Json:
    """Plan a candidate's share as usual again."""
    return await _throw(access, lambda s: s.unpin(body.candidate, body.reason, caller.name))


@router.post("/v1/studies/{study}/switches/approve", response_model=Thrown)
async def approve(access: Served, caller: Approver, body: Why) -> Json:
    """Approve the plan that waits; whoever proposed it cannot."""
    return await _throw(access, lambda study: study.approve(body.reason, caller.name))


@router.post("/v1/studies/{study}/switches/rollback", response_model=Thrown)
async def rollback(access: Served, caller: Approver, body: RollBack) -> Json:
    """Restore the study to its state when it planned a round; nothing is deleted."""
    return await _throw(access, lambda s: s.roll_back(body.to_round, body.reason, caller.name))


@router.get("/v1/studies/{study}/quarantine", response_model=Answer)
async def quarantine(access: Served, _: Reader) -> Json:
    """Readings that are set aside as absurd, by metric and reason; they do not count."""
    groups, _warnings = await access.read(lambda tuner: set_aside(tuner.study.sync()))
    return Json({"groups": groups})


@router.post("/v1/studies/{study}/quarantine/accept", response_model=Answer)
async def accept(access: Served, caller: Operator, body: Accepted) -> Json:
    """Let readings count that are set aside, because they are right."""
    terms = {name: getattr(body, name) for name in ("rounds", "candidates", "metrics")}

    def work(tuner: Tuner) -> dict[str, int]:
        num = tuner.study.accept_readings(body.reason, **terms, by=caller.name)
        return {"accepted": num, "left": len(tuner.history.quarantined)}

    result, warnings = await access.write(work)
    return Json({**result, "warnings": warnings})


@router.get("/v1/studies/{study}/launch", response_model=Answer)
async def launch_status(access: Served, _: Reader) -> Json:
    """The latest launch with the present verdict; null where there was none."""
    report, _warnings = await access.read(
        lambda tuner: None if tuner.study.sync().last_plan is None else tuner.launch_status()
    )
    return Json({"launch": None if report is None else report.to_dict()})


@router.post("/v1/studies/{study}/launch", response_model=Answer)
async def launch(access: Served, caller: Approver, body: Launch) -> Json:
    """Launch a candidate in stages of all users; the base keeps a holdback."""
    terms = {name: value for name in _TERMS if (value := getattr(body, name)) is not None}
    report, warnings = await access.write(
        lambda tuner: tuner.launch(
            body.candidate,
            unproven=body.unproven,
            who=caller.name,
            reason=body.reason,
            dry_run=body.dry_run,
            **terms,
        )
    )
    return Json({"launch": report.to_dict(), "written": not body.dry_run, "warnings": warnings})


@router.post("/v1/studies/{study}/launch/abort", response_model=Answer)
async def abort(access: Served, caller: Operator, body: Why) -> Json:
    """End the launch that is under way; the control is served until the next plan."""
    served, warnings = await access.write(lambda tuner: aborted(access, tuner, body.reason, caller))
    return Json({"served": served, "warnings": warnings})


def aborted(access: Access, tuner: Tuner, reason: str, caller: Caller) -> str:
    """End the launch, then bring up to date what is served; says what that is."""
    tuner.abort_launch(reason, who=caller.name)
    return access.serve(tuner)


@router.post("/v1/studies/{study}/promote", response_model=Answer)
async def promote(access: Served, caller: Approver, body: Promotion) -> Json:
    """Make the launched candidate the base; the study goes on as the next one.

    Further calls under the same address go on with the next study.
    """

    def work(tuner: Tuner) -> dict[str, Any]:
        waiting = tuner.study.sync().num_in_flight  # arms whose readings are not carried
        successor = tuner.promote(
            body.candidate,
            name=body.name,
            unlaunched=body.unlaunched,
            who=caller.name,
            reason=body.reason,
        )
        return {
            "successor": successor.study.name,
            "next_round": successor.history.next_round,
            "base": dict(successor.problem.base),
            "arms_not_carried": waiting,
        }

    promoted, warnings = await access.write(work)
    return Json({**promoted, "warnings": warnings})


@router.get("/v1/studies/{study}/goals", response_model=Answer)
async def goals(access: Served, _: Reader) -> Json:
    """Which goals held when, who changed them and why; the last are in force."""

    def read(tuner: Tuner) -> list[dict[str, Any]]:
        history = tuner.study.sync()
        header = tuner.journal.header(tuner.study.name)
        return [
            {
                "after": period.after,
                "last": period.last,
                "by": None if period.change is None else period.change.by,
                "reason": period.reason,
                "differences": [] if period.change is None else list(period.change.differences),
                "problem": finite(dict(period.goals.problem)),
            }
            for period in periods(header, history)
        ]

    rows, _warnings = await access.read(read)
    return Json({"goals": rows})


@router.post("/v1/studies/{study}/goals", response_model=Answer)
async def change_goals(access: Served, caller: Approver, body: Goals) -> Json:
    """Put the goals of the study file, as it is now on the server, in force."""
    file = access.place.file
    if file is None:
        raise ConfigError(
            "this study is served from its journal, without a study file; change its goals with "
            "'hyperzero goals change', nothing was changed"
        )

    def change(tuner: Tuner) -> dict[str, Any]:
        study = StudyConfig.from_file(file)
        effect = tuner.change_goals(
            study.problem(), reason=body.reason, by=caller.name, dry_run=body.dry_run
        )
        return effect.to_dict() | {"written": effect.changed and not body.dry_run}

    effect, warnings = await access.write(change)
    return Json({**effect, "warnings": warnings})
