"""The entries of switches that people throw; each is refused where it would change nothing.

``Switchboard`` has a method for each, with its documentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

from ..errors import RoundError
from .config import TunerConfig
from .history import CONTROL, History
from .journal import Decision
from .journal.switch_trace import (
    AllWithdrawn,
    Approved,
    Paused,
    Pinned,
    Resumed,
    StoppedByHand,
    Switch,
    Unpinned,
)
from .switch_state import SwitchState


def pause(history: History, reason: str, by: str) -> list[Decision]:
    """Keep candidates and shares as in the last plan."""
    state = _switches(history, reason, by)
    if state.mode != "running":
        raise RoundError(
            f"the study is {state.mode} already, by {state.by} ({state.why}); nothing was changed"
        )
    return [_entry(history, reason, Paused(by=by))]


def withdraw(history: History, reason: str, by: str) -> list[Decision]:
    """Give all traffic to the control."""
    state = _switches(history, reason, by)
    if state.mode == "withdrawn":
        raise RoundError(
            f"the study is withdrawn already, by {state.by} ({state.why}); nothing was changed"
        )
    return [_entry(history, reason, AllWithdrawn(by=by))]


def resume(history: History, reason: str, by: str) -> list[Decision]:
    """Plan as usual again."""
    if _switches(history, reason, by).mode == "running":
        raise RoundError(
            "the study is neither paused nor withdrawn, so there is nothing to resume; nothing was "
            "changed"
        )
    return [_entry(history, reason, Resumed(by=by))]


def stop(history: History, candidates: Sequence[int], reason: str, by: str) -> list[Decision]:
    """Serve candidates no more until they are let back in."""
    _switches(history, reason, by)
    numbers = sorted({_candidate(history, c) for c in candidates})
    gone = [c for c in numbers if c in history.status.stopped]
    if gone or not numbers:
        raise RoundError(
            f"candidates {gone} are stopped already; nothing was changed"
            if gone
            else "name the candidates to stop"
        )
    return [_entry(history, reason, StoppedByHand(by=by, candidates=numbers))]


def pin(history: History, candidate: int, share: float, reason: str, by: str) -> list[Decision]:
    """Give a candidate this share of the experiment in every plan."""
    state, number = _switches(history, reason, by), _candidate(history, candidate)
    is_share = isinstance(share, Real) and not isinstance(share, bool) and 0 < float(share) < 1
    if not is_share:
        raise RoundError(
            f"a pinned share is a fraction of the experiment above 0 and below 1, got {share!r}; "
            "nothing was changed"
        )
    if number in history.status.stopped:
        raise RoundError(
            f"candidate {number} is stopped; let it back in first, or pin another: nothing was "
            "changed"
        )
    shares = {c: held.share for c, held in state.pins.items()} | {number: float(share)}
    config = TunerConfig(**history.config)
    is_auto = config.control_share == "auto"
    control = config.max_control_share if is_auto else float(config.control_share)
    total = math.fsum([*shares.values(), control])
    if total >= 1 - 1e-9:
        listed = ", ".join(f"candidate {c}: {s:.4g}" for c, s in sorted(shares.items()))
        of_control = f"up to {control:.4g} for the control" if is_auto else f"{control:.4g} for it"
        raise RoundError(
            f"the pins ({listed}) and the control's share ({of_control}) sum to {total:.4g}, and "
            "must stay below 1; pin less, unpin others, or lower "
            f"{'max_control_share' if is_auto else 'control_share'}: nothing was changed"
        )
    return [_entry(history, reason, Pinned(by=by, candidate=number, share=float(share)))]


def unpin(history: History, candidate: int, reason: str, by: str) -> list[Decision]:
    """Plan a candidate's share as usual again."""
    state, number = _switches(history, reason, by), _candidate(history, candidate)
    if number not in state.pins:
        raise RoundError(
            f"candidate {number} is not pinned; pinned: {list(state.pins) or 'none'}. Nothing was "
            "changed"
        )
    return [_entry(history, reason, Unpinned(by=by, candidate=number))]


def approve(history: History, reason: str, by: str) -> list[Decision]:
    """Let the plan that waits be made with the next round."""
    waiting = _switches(history, reason, by).waiting
    if waiting is None:
        raise RoundError("no plan waits for approval; nothing was changed")
    if by in waiting.proposers:
        raise RoundError(
            f"{by} proposed this plan (proposed by {' and '.join(waiting.proposers)}); somebody "
            "else has to approve it: nothing was changed"
        )
    return [_entry(history, reason, Approved(by=by, candidates=waiting.candidates))]


def _entry(history: History, reason: str, trace: Switch) -> Decision:
    return Decision.of(history.last_round or 0, reason, trace)


def _switches(history: History, reason: str, by: str) -> SwitchState:
    """The switches as they stand; ``RoundError`` without a reason or a name."""
    for value, name in ((reason, "a reason, in a sentence"), (by, "who throws the switch")):
        if not isinstance(value, str) or not value.strip():
            raise RoundError(f"give {name}; the journal stores it")
    return history.status.switches


def _candidate(history: History, candidate: int) -> int:
    """The candidate's number; ``RoundError`` unless there is one, and it is not the control."""
    whole = isinstance(candidate, Integral) and not isinstance(candidate, bool)
    if not whole or not 0 <= int(candidate) < history.num_candidates:
        last = history.num_candidates - 1
        exist = f"there are candidates 1 to {last}" if last > 0 else "there is none yet"
        raise RoundError(f"candidate {candidate!r} does not exist; {exist}. Nothing was changed")
    if int(candidate) == CONTROL:
        raise RoundError(
            "candidate 0 is the control, which is always served; set control_share for its share, "
            "or withdraw the study: nothing was changed"
        )
    return int(candidate)
