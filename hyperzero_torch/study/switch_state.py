"""The switches of a study as they stand: paused or withdrawn, pins, approvals."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from .journal import Decision
from .journal.missing_trace import Withdrawn
from .journal.switch_trace import (
    AllWithdrawn,
    ApprovalNeeded,
    Approved,
    Paused,
    Pinned,
    Resumed,
    StoppedByHand,
    Unpinned,
)
from .journal.trace import RolledBack, Stopped

Mode: TypeAlias = Literal["running", "paused", "withdrawn"]


@dataclass(frozen=True)
class Pin:
    """The share of a pinned candidate, and who pinned it."""

    share: float
    by: str


@dataclass(frozen=True)
class SwitchState:
    """The switches as they stand.

    ``mode``, with ``why`` and ``by`` where it is not ``"running"``; ``pins`` by candidate.
    ``approved`` candidates may exceed the share above which approval is needed, until they are
    stopped or the study is rolled back; ``revoked`` ones were approved once. ``waiting`` is what
    the last plan waits for.
    """

    mode: Mode = "running"
    why: str = ""
    by: str = ""
    pins: Mapping[int, Pin] = field(default_factory=dict)
    approved: frozenset[int] = frozenset()
    revoked: frozenset[int] = frozenset()
    waiting: ApprovalNeeded | None = None

    def after(self, entry: Decision) -> SwitchState:
        """The switches after a decision; most leave them as they are."""
        match entry.trace:
            case Paused(by=by):
                return replace(self, mode="paused", why=entry.reason, by=by)
            case AllWithdrawn(by=by):
                return replace(self, mode="withdrawn", why=entry.reason, by=by, waiting=None)
            case Resumed():
                return replace(self, mode="running", why="", by="")
            case Pinned(candidate=candidate, share=share, by=by):
                pins = {**self.pins, candidate: Pin(share, by)}
                return replace(self, pins=dict(sorted(pins.items())))
            case Unpinned(candidate=candidate):
                return self._without([candidate])
            case Stopped() | Withdrawn() | StoppedByHand() as trace:
                return self._without(trace.candidates)._revoke(set(trace.candidates))
            case RolledBack(candidates=candidates):  # approvals rested on what no longer counts
                return replace(self._without(candidates)._revoke(self.approved), waiting=None)
            case ApprovalNeeded() as trace:
                return replace(self, waiting=trace)
            case Approved(candidates=candidates):
                approved, revoked = self.approved.union(candidates), self.revoked
                revoked = revoked.difference(candidates)
                return replace(self, approved=approved, revoked=revoked, waiting=None)
        return self

    def planned(self, held: str | None) -> SwitchState:
        """The switches after a plan: nothing waits any more where it was made as usual."""
        is_settled = held is not None or self.waiting is None
        return self if is_settled else replace(self, waiting=None)

    def in_words(self) -> str | None:
        """What holds the study up, in a sentence; None where nothing does."""
        if self.mode == "withdrawn":
            return f"withdrawn by {self.by}: all traffic goes to the control ({self.why})"
        if self.mode == "paused":
            return f"paused by {self.by}: candidates and shares stay as they are ({self.why})"
        return None if self.waiting is None else waiting_in_words(self.waiting)

    def _revoke(self, candidates: Collection[int]) -> SwitchState:
        revoked = self.approved.intersection(candidates)
        return replace(self, approved=self.approved - revoked, revoked=self.revoked | revoked)

    def _without(self, candidates: Collection[int]) -> SwitchState:
        pins = {c: pin for c, pin in self.pins.items() if c not in candidates}
        return self if len(pins) == len(self.pins) else replace(self, pins=pins)


def waiting_in_words(needed: ApprovalNeeded) -> str:
    """What a plan waits for, in a sentence."""
    raised = ", ".join(
        f"candidate {c} to {share:.1%}" for c, share in zip(needed.candidates, needed.shares)
    )
    who = " and ".join(needed.proposers)
    return (
        f"waiting for approval: a plan would raise {raised}, above {needed.above:.4g}; the last "
        f"approved plan is served until somebody other than {who} approves it"
    )
