"""What a round made of other domains, told to people by the facts that its plan holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """What a round made of other domains: what was done and why, and what was not done."""

    taken: str
    why: str
    alternative: str


def choice(facts: Mapping[str, Any]) -> Choice:
    """The decision behind a plan's facts about transfer.

    Args:
        facts: ``details["transfer"]`` of a plan.
    """
    why = str(facts.get("reason", ""))
    if "seeds" in facts:
        num = len(facts.get("candidates", ()))
        if facts["used"]:
            taken = f"{num} candidates that other domains suggest stand beside the first design"
            return Choice(taken, why, "the usual first design alone")
        other = "candidates that other domains suggest, beside the first design"
        return Choice("the usual first design", why, other)
    held = ", ".join(
        f"{one['transferred'] - one['cold']:+.2f} nats ({name})"
        for name, one in facts.get("held_out", {}).items()
    )
    # Of an ensemble: the part of the draws in which the target's own model ranked best.
    own = facts.get("target_weight")
    if facts["used"]:
        other = "a cold start"
        if held:
            other += f"; against it left-out evidence was predicted better by {held}"
        elif own is not None:
            other += f", whose model keeps a weight of {_parts(own)}"
        return Choice(f"other domains count for {', '.join(facts['metrics'])}", why, other)
    other = "the transferred model"
    if held:
        other += f", which predicts left-out evidence better by {held}"
    elif "wealth" in facts:
        other += f", not admitted: log wealth {facts['wealth']:.2f}, needed {facts['needed']:.2f}"
    return Choice("a cold start", why, other)


def sentences(facts: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """The same, and every source's part in it, as sentences."""
    made = choice(facts)
    said = [f"{made.taken}: {made.why}", f"alternative not taken: {made.alternative}"]
    names = {"similarity": "correlation with this study", "weight": "weight", "nats": "bets (nats)"}
    for source, one in facts.get("sources", {}).items():
        parts = [f"{says} {_parts(one[key], metrics)}" for key, says in names.items() if key in one]
        if "likeness" in one:
            parts.append(
                f"likeness {one['likeness']:+.2f} (0: as any domain, 1: it looks the same)"
            )
        said.append(f"source {source}: {'; '.join(parts)}")
    for parameter, nats in facts.get("parameters", {}).items():
        said.append(f"what sources say about {parameter} was worth {_parts(nats, metrics)} nats")
    return said


def _parts(values: Sequence[float], names: Sequence[str] = ()) -> str:
    """Numbers by metric."""
    found = [f"{value:.2f}" for value in values]
    if len(names) == len(found) > 1:
        found = [f"{value} {name}" for name, value in zip(names, found)]
    return ", ".join(found)
