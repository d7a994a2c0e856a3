"""``hyperzero transfer overrule``: an expert's override of a study's sources."""

from __future__ import annotations

from typing import Annotated

import typer

from ...transfer.journaled import current_override, override_entry, recorded
from ...transfer.overrides import ExpertOverride, Subject, label
from ..output import note
from ..study import Config, DryRun, open_study
from .export import pairs

_SUBJECT = "SOURCE or SOURCE:PARAMETER"
_FORM = "SOURCE=NUMBER, such as north=0.5"


def overrule(
    config: Config,
    reason: Annotated[str, typer.Option(help="Why; it is stored in the journal.")],
    pin: Annotated[
        list[str] | None,
        typer.Option(help="SOURCE=0.8: its correlation with this study, whatever the evidence."),
    ] = None,
    forbid: Annotated[
        list[str] | None, typer.Option(help=f"{_SUBJECT}: its evidence is not used.")
    ] = None,
    discount: Annotated[
        list[str] | None,
        typer.Option(help=f"{_SUBJECT}=0.5: this part of its evidence's precision is used."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Override what was learned about sources: pin, forbid or discount them.

    Each override replaces the one before, so state everything that is to hold; --reason alone
    removes all overrides. The evidence about a forbidden parameter is used only where the parameter
    is at this study's base value.

    Example:

      hyperzero transfer overrule -c south.yaml --discount north=0.5 --forbid east:w_share \\
        --reason "east counts shares since May"
    """
    tuner = open_study(config)
    names = [source.name for source in recorded(tuner.history)]

    def number(name: str, written: str) -> tuple[Subject, float]:
        return _subject(name, names), float(written)

    override = ExpertOverride(
        pin=pairs("--pin", _FORM, pin, number),
        forbid=[_subject(text, names) for text in forbid or ()],
        discount=pairs("--discount", _FORM, discount, number),
        reason=reason,
    )
    entry = override_entry(tuner.history, override, names, tuner.problem.space.names)
    before = current_override(tuner.history)
    for kind in ("pin", "forbid", "discount"):
        gone = [s for s in getattr(before, kind) if s not in getattr(override, kind)]
        if gone:
            note(f"no longer holds: {kind} {', '.join(map(label, gone))}", "yellow")
    if dry_run:
        note(f"dry run: {entry.reason}; nothing was written")
        return
    tuner.overrule(override)
    note(f"{entry.reason}; it counts from the next plan on")


def _subject(text: str, names: list[str]) -> Subject:
    """A source, whose name may contain colons, or one parameter of it."""
    if text in names:
        return text
    source, colon, parameter = text.rpartition(":")
    return (source, parameter) if colon else text
