"""The switches of a study: what a person can do at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..runtime.login import login_name
from . import switches
from .history import History
from .journal import Decision


class _Decides(Protocol):
    def _decide(self, decide: Callable[[History], Sequence[Decision]]) -> None: ...


class Switchboard:
    """Switches, as methods of ``Study``. Each is journaled, with its reason and who threw it.

    ``by`` is a name; by default the login name of this process. A switch that would change nothing,
    or that cannot be, raises ``RoundError``.
    """

    def pause(self: _Decides, reason: str, by: str | None = None) -> None:
        """Freeze the last plan: candidates and shares stay as they are until ``resume``.

        No candidate is added, retired or recommended for more traffic; readings go on. Candidates
        that break a guardrail are still stopped, and their share goes to the control.
        """
        _throw(self, switches.pause, reason, by)

    def withdraw(self: _Decides, reason: str, by: str | None = None) -> None:
        """Give all traffic to the control until ``resume``: at once, and in every plan."""
        _throw(self, switches.withdraw, reason, by)

    def resume(self: _Decides, reason: str, by: str | None = None) -> None:
        """End a pause, or let a withdrawn study be served again."""
        _throw(self, switches.resume, reason, by)

    def stop(
        self: _Decides, candidates: int | Sequence[int], reason: str, by: str | None = None
    ) -> None:
        """Serve candidates no more, at once, until ``readmit`` lets them back in."""
        numbers = [candidates] if isinstance(candidates, int) else list(candidates)
        _throw(self, switches.stop, numbers, reason, by)

    def pin(
        self: _Decides, candidate: int, share: float, reason: str, by: str | None = None
    ) -> None:
        """Give a candidate this share of the experiment, from the next plan on, until ``unpin``.

        Neither draws nor limits of the configuration change it. It ends where the candidate is
        stopped; and where no readings arrive at all, it falls with the others.
        """
        _throw(self, switches.pin, candidate, share, reason, by)

    def unpin(self: _Decides, candidate: int, reason: str, by: str | None = None) -> None:
        """Plan a candidate's share as usual again, from the next plan on."""
        _throw(self, switches.unpin, candidate, reason, by)

    def approve(self: _Decides, reason: str, by: str | None = None) -> None:
        """Approve the plan that waits (``TunerConfig.approval_above``): the next plan is like it.

        The candidates that it raises may have more than that share until they are stopped or the
        study is rolled back. Whoever proposed the plan cannot approve it.
        """
        _throw(self, switches.approve, reason, by)


def _throw(study: _Decides, switch: Callable[..., list[Decision]], *values: Any) -> None:
    *arguments, by = values
    who = login_name() if by is None else by
    study._decide(lambda history: switch(history, *arguments, who))
