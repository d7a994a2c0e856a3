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
        f"{name} {one['transferred'] - one['cold']:+.2f}"
        for name, one in facts.get("held_out", {}).items()
    )
    # Of an ensemble: the part of the draws in which the target's own model ranked best.
    own = facts.get("target_weight")
    if facts["used"]:
        other = "a cold start"
        if held:
            other += f"; against it left-out evidence gained, in nats: {held}"
        elif own is not None:
            other += f", whose model keeps a weight of {_parts(own)}"
        return Choice(f"other domains count for {', '.join(facts['metrics'])}", why, other)
    other = "the transferred model"
    if held:
        other += f"; with it left-out evidence would gain, in nats: {held}"
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
    for source, unknown in facts.get("silent", {}).items():
        said.append(
            f"source {source} says nothing of {', '.join(unknown)}: too few of its settings differ "
            "there by more than their noise"
        )
    if facts.get("refused"):
        said.append(
            f"new settings refused: {facts['refused']}; P(gain > 0 and feasible) was below what "
            "their risk asks for"
        )
    for parameter, nats in facts.get("parameters", {}).items():
        said.append(f"what sources say about {parameter} was worth {_parts(nats, metrics)} nats")
    return said


def risk(details: Mapping[str, Any], candidate: int) -> str | None:
    """What a new candidate was screened for in the plan of its birth; None where it was not.

    Args:
        details: of that plan.
        candidate: its id.
    """
    one = details.get("transfer", {}).get("screened", {}).get(str(candidate))
    if one is None:
        return None
    return (
        f"P(gain > 0 and feasible) was {one['prob']:.2f} when it was new, and its risk asked for "
        f"{one['needed']:.2f} at least"
    )


def weight(facts: Mapping[str, Any], source: str) -> float:
    """A source's weight in a plan, on average over the metrics in which sources counted.

    Args:
        facts: ``details["transfer"]`` of a plan that weighed sources.
        source: its name.
    """
    by_metric = facts.get("sources", {}).get(source, {}).get("weight", ())
    num = len(facts["metrics"])
    return sum(by_metric) / num if facts["used"] and num else 0.0


def _parts(values: Sequence[float], names: Sequence[str] = ()) -> str:
    """Numbers by metric."""
    found = [f"{value:.2f}" for value in values]
    if len(names) == len(found) > 1:
        found = [f"{value} {name}" for name, value in zip(names, found)]
    return ", ".join(found)
