"""What a round decided about other domains, in sentences, from its plan's trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..study.journal.trace import TransferTrace


class Choice(NamedTuple):
    """What was done, why, and the alternative that was not chosen."""

    taken: str
    why: str
    alternative: str


def choice(trace: TransferTrace) -> Choice:
    """The decision behind a plan's trace."""
    why = trace.reason
    if trace.seeds is not None:
        if trace.used:
            num = len(trace.candidates)
            taken = f"{num} candidates suggested by other domains are added to the first design"
            return Choice(taken, why, "the usual first design alone")
        return Choice(
            "the usual first design", why, "candidates suggested by other domains in addition"
        )
    gains = ", ".join(
        f"{name} {density.transferred - density.cold:+.2f}"
        for name, density in trace.held_out.items()
    )
    if trace.used:
        other = "a cold start"
        if gains:
            other += f"; the sources change the log density of left-out evidence (nats) by: {gains}"
        return Choice(f"sources are used for {', '.join(trace.metrics or ())}", why, other)
    other = "the transferred model"
    if gains:
        other += f"; it would change the log density of left-out evidence (nats) by: {gains}"
    elif trace.log_e_value is not None and trace.needed is not None:
        other += f", not admitted: log e-value {trace.log_e_value:.2f}, needed {trace.needed:.2f}"
    return Choice("a cold start", why, other)


def sentences(trace: TransferTrace, metrics: Sequence[str]) -> list[str]:
    """The same, and the part of every source in it, as sentences."""
    decided = choice(trace)
    lines = [f"{decided.taken}: {decided.why}", f"alternative not chosen: {decided.alternative}"]
    labels = {
        "similarity": "correlation with this study",
        "weight": "weight",
        "log_bayes_factor": "log Bayes factor (nats)",
    }
    for source, weighed in trace.sources.items():
        parts = [
            f"{label} {_by_metric(values, metrics)}"
            for name, label in labels.items()
            if (values := getattr(weighed, name))
        ]
        if weighed.likeness is not None:
            parts.append(
                f"feature similarity {weighed.likeness:+.2f} (0: an ordinary domain, 1: the "
                "same features)"
            )
        lines.append(f"source {source}: {'; '.join(parts)}")
    for source, unknown in trace.silent.items():
        lines.append(
            f"source {source} has no usable evidence on {', '.join(unknown)}: too few of its "
            "settings differ there by more than their noise"
        )
    if trace.refused:
        lines.append(
            f"new settings refused: {trace.refused}; their P(gain > 0 and feasible) was lower "
            "than their risk requires"
        )
    for parameter, nats in trace.parameters.items():
        lines.append(
            f"the sources' evidence about {parameter} contributed {_by_metric(nats, metrics)} nats"
        )
    return lines


def weight(trace: TransferTrace, source: str) -> float:
    """A source's weight in a plan, averaged over the metrics in which sources are used."""
    weighed = trace.sources.get(source)
    num = len(trace.metrics or ())
    return sum(weighed.weight) / num if weighed is not None and trace.used and num else 0.0


def _by_metric(values: Sequence[float], names: Sequence[str] = ()) -> str:
    """Numbers, each with its metric's name where there are several."""
    numbers = [f"{value:.2f}" for value in values]
    if len(names) == len(numbers) > 1:
        numbers = [f"{number} {name}" for number, name in zip(numbers, names)]
    return ", ".join(numbers)
