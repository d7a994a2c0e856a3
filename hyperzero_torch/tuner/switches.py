"""The effect of switches on a plan: held plans, pinned shares, and plans that need approval.

A held plan is the plan of its round like any other, so what is served is what its readings belong
to. Nothing is added, proposed or retired in such a round, and drift is not monitored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..study.config import TunerConfig
from ..study.history import CONTROL, History
from ..study.journal import Decision, Planned
from ..study.journal.switch_trace import ApprovalNeeded
from ..study.journal.trace import PlanTrace
from ..study.switch_state import Pin, SwitchState, waiting_in_words
from .context import RoundContext

WAITING = "waiting"
# Shares are rounded to so many digits when they are compared with a limit.
_ROUNDING = 1e-9


class Shares(NamedTuple):
    """Candidates of a plan without the control, their slots, and shares, the control's first."""

    arms: Tensor
    slots: Tensor
    shares: tuple[float, ...]


def note_on(state: SwitchState) -> tuple[str, ...]:
    """What a plan's notes say of the switches."""
    pins = [f"candidate {c} at {pin.share:.4g} by {pin.by}" for c, pin in state.pins.items()]
    held = None if state.mode == "running" else state.in_words()
    notes = [] if held is None else [held]
    return (*notes, *([f"pinned: {', '.join(pins)}"] if pins else []))


def held_plan(
    context: RoundContext,
    kind: str,
    num_tested: int,
    notes: Sequence[str],
    trigger: str | None,
    needed: ApprovalNeeded | None = None,
) -> Planned:
    """The plan of a round in which switches, not draws, say what is served.

    Args:
        context: of the round.
        kind: ``"withdrawn"``, the control alone; else candidates and shares of the last plan, where
            the shares of those that have been stopped since go to the control.
        num_tested: candidates with evidence.
        notes: of the plan.
        trigger: the message that asks for it.
        needed: what has to be approved; candidates whose approval was revoked are not served.
    """
    history = context.history
    last = None if kind == "withdrawn" else history.last_plan
    kept = []
    if last is not None:
        gone = set(history.status.stopped)
        if needed is not None:
            gone |= history.status.switches.revoked.intersection(needed.candidates)
        arms = zip(last.candidates[1:], last.slots[1:], last.shares[1:])
        kept = [arm for arm in arms if arm[0] not in gone]
    control = last.shares[0] if last and len(kept) == len(last.candidates) - 1 else None
    if control is None:
        control = 1.0 - sum(share for _, _, share in kept)
    part = context.config.experiment_share if last is None else last.trace.experiment_share
    trace = PlanTrace(num_tested=num_tested, held=kind, notes=tuple(notes), experiment_share=part)
    return Planned(
        round=context.round,
        candidates=(CONTROL, *(c for c, _, _ in kept)),
        slots=(0, *(slots for _, slots, _ in kept)),
        shares=(control, *(share for _, _, share in kept)),
        trigger=trigger,
        details=trace.stored(),
    )


def places_beside(config: TunerConfig, pins: Collection[int]) -> TunerConfig:
    """The configuration for the arms that are not pinned: pinned ones take places too."""
    if not pins:
        return config
    return config.model_copy(update={"max_arms": max(1, config.max_arms - len(pins))})


def without_pinned(votes: Tensor, pins: Collection[int]) -> Tensor:
    """The slots of all other candidates; draws that a pinned one won say nothing of its share."""
    if not pins:
        return votes
    slots = votes.clone()
    slots[list(pins)] = 0
    return slots


def with_pins(planned: Shares, pins: Mapping[int, Pin], votes: Tensor) -> Shares:
    """Add the pinned candidates to a plan of the others.

    The control keeps its share, as far as the pins leave it, and the others share out the rest in
    the same proportions.

    Args:
        planned: the plan without them.
        pins: by candidate.
        votes: slots that each candidate won, ``(candidates,)``.
    """
    if not pins:
        return planned
    control, *others = planned.shares
    rest = 1.0 - sum(pin.share for pin in pins.values())
    if others and 0.0 < control < min(rest, 1.0):
        factor = (rest - control) / (1.0 - control)
    else:  # no others, or pins of a time when the control had less
        factor = rest
    share_of = {c: factor * share for c, share in zip(planned.arms.tolist(), others)}
    slots_of = dict(zip(planned.arms.tolist(), planned.slots.tolist()))
    share_of |= {c: pin.share for c, pin in pins.items()}
    slots_of |= {c: max(1, int(votes[c])) for c in pins}
    arms = sorted(share_of)
    shares = [share_of[c] for c in arms]
    return Shares(
        torch.tensor(arms, dtype=torch.long),
        torch.tensor([slots_of[c] for c in arms], dtype=torch.long),
        (1.0 - sum(shares), *shares),
    )


def approval_needed(
    history: History, config: TunerConfig, arms: Sequence[int], shares: Sequence[float], by: str
) -> ApprovalNeeded | None:
    """What has to be approved before a plan can be made; None where nothing has.

    Args:
        history: the study's facts.
        config: the share above which approval is needed.
        arms: candidates of the plan without the control.
        shares: of the plan, the control's first.
        by: who asks for the plan; whoever pinned one of these candidates proposes it too.
    """
    above, switches = config.approval_above, history.status.switches
    if above is None:
        return None
    raised = [
        (c, share)
        for c, share in zip(arms, shares[1:])
        if share > above + _ROUNDING and c not in switches.approved
    ]
    if not raised:
        return None
    pinned = {switches.pins[c].by for c, _ in raised if c in switches.pins}
    return ApprovalNeeded(
        candidates=tuple(c for c, _ in raised),
        shares=tuple(share for _, share in raised),
        above=above,
        proposers=tuple(sorted({by, *pinned})),
    )


def approval_remarks(context: RoundContext, needed: ApprovalNeeded) -> list[Decision]:
    """The entry that asks for approval, where the journal does not ask for the same already."""
    earlier = context.history.status.switches.waiting
    if earlier is not None and (
        (earlier.candidates, earlier.proposers) == (needed.candidates, needed.proposers)
    ):
        return []
    return [Decision.of(context.round, waiting_in_words(needed), needed)]
