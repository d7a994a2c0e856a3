"""What a round decided about other domains, in sentences, from the facts that its plan stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """What was done, why, and the alternative that was not chosen."""

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
        if facts["used"]:
            num = len(facts.get("candidates", ()))
            taken = f"{num} candidates suggested by other domains are added to the first design"
            return Choice(taken, why, "the usual first design alone")
        return Choice(
            "the usual first design", why, "candidates suggested by other domains in addition"
        )
    gains = ", ".join(
        f"{name} {density['transferred'] - density['cold']:+.2f}"
        for name, density in facts.get("held_out", {}).items()
    )
    if facts["used"]:
        other = "a cold start"
        if gains:
            other += f"; the sources change the log density of left-out evidence (nats) by: {gains}"
        return Choice(f"sources are used for {', '.join(facts['metrics'])}", why, other)
    other = "the transferred model"
    if gains:
        other += f"; it would change the log density of left-out evidence (nats) by: {gains}"
    elif "wealth" in facts:
        other += f", not admitted: log e-value {facts['wealth']:.2f}, needed {facts['needed']:.2f}"
    return Choice("a cold start", why, other)


def sentences(facts: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """The same, and the part of every source in it, as sentences."""
    decided = choice(facts)
    lines = [f"{decided.taken}: {decided.why}", f"alternative not chosen: {decided.alternative}"]
    labels = {
        "similarity": "correlation with this study",
        "weight": "weight",
        "nats": "log Bayes factor (nats)",
    }
    for source, weighed in facts.get("sources", {}).items():
        parts = [
            f"{label} {_by_metric(weighed[key], metrics)}"
            for key, label in labels.items()
            if key in weighed
        ]
        if "likeness" in weighed:
            parts.append(
                f"feature similarity {weighed['likeness']:+.2f} (0: an ordinary domain, 1: the "
                "same features)"
            )
        lines.append(f"source {source}: {'; '.join(parts)}")
    for source, unknown in facts.get("silent", {}).items():
        lines.append(
            f"source {source} has no usable evidence on {', '.join(unknown)}: too few of its "
            "settings differ there by more than their noise"
        )
    if facts.get("refused"):
        lines.append(
            f"new settings refused: {facts['refused']}; their P(gain > 0 and feasible) was lower "
            "than their risk requires"
        )
    for parameter, nats in facts.get("parameters", {}).items():
        lines.append(
            f"the sources' evidence about {parameter} contributed {_by_metric(nats, metrics)} nats"
        )
    return lines


def risk(details: Mapping[str, Any], candidate: int) -> str | None:
    """The risk of a new candidate in the plan that added it; None where it was not screened.

    Args:
        details: of that plan.
        candidate: its id.
    """
    screened = details.get("transfer", {}).get("screened", {}).get(str(candidate))
    if screened is None:
        return None
    return (
        f"P(gain > 0 and feasible) was {screened['prob']:.2f} when it was new; its risk required "
        f"at least {screened['needed']:.2f}"
    )


def weight(facts: Mapping[str, Any], source: str) -> float:
    """A source's weight in a plan, averaged over the metrics in which sources are used.

    Args:
        facts: ``details["transfer"]`` of a plan that weighed sources.
        source: its name.
    """
    by_metric = facts.get("sources", {}).get(source, {}).get("weight", ())
    num = len(facts["metrics"])
    return sum(by_metric) / num if facts["used"] and num else 0.0


def _by_metric(values: Sequence[float], names: Sequence[str] = ()) -> str:
    """Numbers, each with its metric's name where there are several."""
    numbers = [f"{value:.2f}" for value in values]
    if len(names) == len(numbers) > 1:
        numbers = [f"{number} {name}" for number, name in zip(numbers, names)]
    return ", ".join(numbers)
