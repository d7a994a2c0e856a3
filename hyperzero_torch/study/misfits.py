"""Why a trace of the journal does not fit its study: the next plan would rest on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..stats.drift import STAKES
from .journal import Planned, unpack_array
from .journal.arrays import evidence_flaw
from .journal.launch_trace import Carried
from .journal.trace import HyperparametersTrace, PlanTrace

_HYPERPARAMETERS = ("lengthscale", "outputscale", "constant")


def of_trace(trace: PlanTrace, num_candidates: int, num_metrics: int) -> str | None:
    """Why a plan's trace does not fit; None where it does."""
    named = [*trace.proposed, *trace.leaders, *trace.revived, *(trace.crowded_out or ())]
    if trace.transfer is not None:
        named += [*trace.transfer.candidates, *trace.transfer.screened]
    if trace.launch is not None:
        named.append(trace.launch.candidate)
    detector = trace.drift
    if detector is not None:
        named += detector.memory
        rows = [detector.num_rounds, *detector.detector, *detector.memory.values()]
        if len(detector.detector) != len(STAKES) or {*map(len, rows)} != {num_metrics}:
            return "the drift detector of its trace does not fit the metrics"
    if unknown := [c for c in named if not 0 <= c < num_candidates]:
        return f"its trace names candidates that do not exist: {unknown[:8]}"
    return of_fit(trace.hyperparameters, num_metrics)


def of_fit(hyperparameters: HyperparametersTrace | None, num_metrics: int) -> str | None:
    """Why hyperparameters do not fit the metrics; None where they do."""
    if hyperparameters is None:
        return None
    lengthscale, *others = (getattr(hyperparameters, name) for name in _HYPERPARAMETERS)
    widths = {len(row) for row in lengthscale}
    if {len(lengthscale), *map(len, others)} != {num_metrics} or len(widths) != 1:
        return "the hyperparameters of its trace do not fit the metrics"
    return None


def of_evidence(evidence: Mapping[str, Any], num_candidates: int, num_metrics: int) -> str | None:
    """Why the evidence of a block does not fit; None where it does."""
    ids = unpack_array(evidence["candidate"])
    width = evidence["mean"]["shape"][1]
    if not (ids >= num_candidates).any() and width == num_metrics:
        return None
    return (
        f"its evidence has candidates up to {ids.max(initial=0)} and {width} metrics, the study "
        f"has {num_candidates} candidates and {num_metrics} metrics"
    )


def of_carried(trace: Carried, num_plans: int, num_candidates: int) -> str | None:
    """Why the evidence of an earlier study cannot be carried here; None where it can."""
    if num_plans or len(trace.served) != num_candidates:
        return (
            f"evidence of study {trace.predecessor!r} about {len(trace.served)} candidates is "
            f"carried after {num_plans} plans and {num_candidates} candidates"
        )
    reason = evidence_flaw(trace.evidence)
    return None if reason is None else f"the carried evidence is damaged: {reason}"


def of_plan(plan: Planned, unknown: Sequence[int], is_planned: bool) -> str | None:
    """A plan of a round that has one, with candidates that do not exist, or without the control."""
    if is_planned:
        reason = "the round is planned already"
    elif unknown:
        reason = f"unknown candidates {list(unknown)}"
    elif plan.candidates[:1] != (0,):
        reason = "the control is not its first arm"
    else:
        return None
    return f"a plan of round {plan.round} with candidates {plan.candidates[:8]}: {reason}"
