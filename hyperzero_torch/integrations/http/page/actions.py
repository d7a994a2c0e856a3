"""The actions of the page: which there are, who may take them, and their forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ....errors import RoundError
from ....tuner.tuner import Tuner
from ..bodies import MAX_NUMBER
from ..deciding import aborted
from ..gate import Session
from ..snapshot import Snapshot
from ..studies import Access
from ..tokens import Caller, Right
from .markup import escape, hidden


@dataclass(frozen=True)
class Given:
    """What a form holds."""

    reason: str
    candidate: int | None
    share: float | None


@dataclass(frozen=True)
class Action:
    """Something that a person can do.

    Args:
        label: of its button.
        what: it does, in a sentence.
        right: that is needed.
        fields: beside the reason: "candidate", "share".
        take: does it; says what is served then.
    """

    label: str
    what: str
    right: Right
    fields: tuple[str, ...]
    take: Callable[[Access, Tuner, Given, Caller], str]


def _candidate(given: Given) -> int:
    if given.candidate is None:
        raise RoundError("name a candidate by its number; nothing was changed")
    return given.candidate


def _pause(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    tuner.study.pause(given.reason, caller.name)
    return access.serve(tuner)


def _withdraw(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    tuner.study.withdraw(given.reason, caller.name)
    return access.serve(tuner)


def _resume(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    tuner.study.resume(given.reason, caller.name)
    return access.serve(tuner)


def _stop(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    tuner.study.stop(_candidate(given), given.reason, caller.name)
    return access.serve(tuner)


def _let_back(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    tuner.study.readmit([_candidate(given)], given.reason, caller.name)
    return access.serve(tuner)


def _pin(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    if given.share is None:
        raise RoundError("give the share in percent, above 0 and below 100; nothing was changed")
    tuner.study.pin(_candidate(given), given.share, given.reason, caller.name)
    return access.serve(tuner)


def _unpin(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    tuner.study.unpin(_candidate(given), given.reason, caller.name)
    return access.serve(tuner)


def _accept(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    tuner.study.accept_readings(given.reason, by=caller.name)
    return "they count from the next plan on"


def _approve(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    tuner.study.approve(given.reason, caller.name)
    return access.serve(tuner)


def _launch(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    report = tuner.launch(given.candidate, who=caller.name, reason=given.reason)
    return f"{report.reason}; {access.serve(tuner)}"


def _abort(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    return aborted(access, tuner, given.reason, caller)


def _promote(access: Access, tuner: Tuner, given: Given, caller: Caller) -> str:
    successor = tuner.promote(given.candidate, who=caller.name, reason=given.reason)
    return f"the study goes on as {successor.study.name!r}"


ACTIONS: Mapping[str, Action] = {
    "pause": Action(
        "Pause",
        "Candidates and shares stay as they are until somebody resumes.",
        "operate",
        (),
        _pause,
    ),
    "resume": Action("Resume", "End the pause or the withdrawal.", "operate", (), _resume),
    "withdraw": Action(
        "Withdraw",
        "All traffic goes to the control, at once, until somebody resumes.",
        "operate",
        (),
        _withdraw,
    ),
    "stop": Action(
        "Stop a candidate",
        "It is served no more, at once. Where the last plan gives it traffic, the control alone is "
        "served until the next plan.",
        "operate",
        ("candidate",),
        _stop,
    ),
    "let-back": Action(
        "Let a candidate back", "It may be served again.", "operate", ("candidate",), _let_back
    ),
    "pin": Action(
        "Pin a candidate",
        "It gets a fixed share of the experiment from the next plan on.",
        "operate",
        ("candidate", "share"),
        _pin,
    ),
    "unpin": Action(
        "Unpin a candidate", "Its share is planned as usual.", "operate", ("candidate",), _unpin
    ),
    "accept": Action(
        "Accept the readings that are set aside",
        "All of them count from the next plan on. Do it only where they are right; otherwise send "
        "them corrected, with a higher revision.",
        "operate",
        (),
        _accept,
    ),
    "approve": Action(
        "Approve the plan", "The next plan is like the one that waits.", "decide", (), _approve
    ),
    "launch": Action(
        "Launch",
        "It goes to more and more users in stages; a holdback keeps the base.",
        "decide",
        ("candidate",),
        _launch,
    ),
    "promote": Action(
        "Promote",
        "The launched candidate becomes the base, and the study goes on as the next one with its "
        "evidence. Readings that arrive later are not carried.",
        "decide",
        (),
        _promote,
    ),
    "abort": Action(
        "Abort the launch", "The control is served until the next plan.", "operate", (), _abort
    ),
}


def next_action(snapshot: Snapshot) -> str | None:
    """The action that the verdict asks for; None where it asks for none that the page has."""
    if snapshot.mode != "running":
        return "resume"
    if snapshot.waits:
        return "approve"
    if snapshot.launch_complete:
        return "promote"
    if snapshot.verdict.action == "launch":
        return "launch"
    return None


def possible(snapshot: Snapshot) -> list[str]:
    """The actions that would change something now, the next one first."""
    if snapshot.verdict.action == "go on":
        return []
    actions = [] if snapshot.mode != "running" else ["pause"]
    actions += ["withdraw"] if snapshot.mode != "withdrawn" else []
    actions += ["resume"] if snapshot.mode != "running" else []
    actions += ["promote"] if snapshot.launch_complete else []
    actions += ["abort"] if snapshot.launch_runs else []
    if snapshot.num_candidates:
        actions += ["stop", "pin"]
        actions += [] if snapshot.launch_runs else ["launch"]
    actions += ["let-back"] if snapshot.stopped else []
    actions += ["unpin"] if snapshot.pins else []
    actions += ["approve"] if snapshot.waits else []
    actions += ["accept"] if snapshot.num_set_aside else []
    first = next_action(snapshot)
    return sorted(actions, key=lambda name: name != first)


def panel(snapshot: Snapshot, session: Session) -> str:
    """The forms of all actions that a person may take now; the next one is open."""
    first = next_action(snapshot)
    forms = [
        _form(name, snapshot, session, name == first)
        for name in possible(snapshot)
        if session.caller.may(ACTIONS[name].right)
    ]
    missing = first is not None and not session.caller.may(ACTIONS[first].right)
    note = f"<p>{_not_yours(first or '', session.caller)}</p>" if missing else ""
    if not forms:
        return note or f"<p>{escape(session.caller.name)} may read only.</p>"
    return note + "".join(forms)


def _not_yours(first: str, caller: Caller) -> str:
    return (
        f"Next: {escape(ACTIONS[first].label.lower())}. {escape(caller.name)} has the role "
        f"{caller.role}, which may not."
    )


def _form(name: str, snapshot: Snapshot, session: Session, is_next: bool) -> str:
    action = ACTIONS[name]
    fields = []
    if "candidate" in action.fields:
        proposed = snapshot.verdict.candidate if name == "launch" else None
        value = "" if proposed is None else f' value="{proposed}"'
        fields.append(
            f'<label>Candidate <input type="number" name="candidate" min="1" max="{MAX_NUMBER}" '
            f'step="1" required{value}></label>'
        )
    if "share" in action.fields:
        fields.append(
            '<label>Share in percent <input type="number" name="percent" min="0.01" max="99.99" '
            'step="any" required></label>'
        )
    hint = "open" if is_next else ""
    look = "next" if is_next else ""
    return (
        f'<details class="action {look}" {hint}><summary>{escape(action.label)}</summary>'
        f'<form method="post" action="/studies/{escape(snapshot.key)}/do/{name}">'
        f"<p>{escape(action.what)}</p>{hidden('key', session.form_key)}{''.join(fields)}"
        '<label>Reason <input type="text" name="reason" required maxlength="500" '
        'autocomplete="off"></label>'
        f'<button type="submit">{escape(action.label)}</button></form></details>'
    )
