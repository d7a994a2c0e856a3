"""Promotion: a candidate becomes the base of a study that goes on with the evidence so far.

Candidate 0 is the control everywhere, so the study goes on as another one in the same journal: its
*successor*, with the promoted parameters as base. Candidates keep their ids, but two: the promoted
one is 0 there, and the base before has its id. The evidence is carried in one block, relative to
the new base (``stats/rebase.py``), with the error that all share; rounds are counted on.

The successor is a function of the journal up to the promotion. Whoever is killed between the two
writes finds the promotion, and makes the successor from it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection

import torch
from torch import Tensor

from ..errors import LaunchError
from ..problem.problem import Problem
from ..stats.evidence import EvidenceState
from ..stats.exposure import Exposure
from ..stats.rebase import Rebased, factors, rebase, remaining
from ..stats.windows import Sums
from .config import TunerConfig
from .evidence.arms import Levels
from .evidence.blocks import to_compacted
from .evidence.bucket import Bucket, gather
from .evidence.pooling import Block, Pooling
from .history import CONTROL, History
from .journal import CandidateAdded, Configured, Decision, Entry
from .journal.launch_trace import Carried, Promoted
from .journal.surrogate_trace import SurrogateChosen
from .journal.trace import Remark, Retired, Stopped
from .launch import check_candidate, check_is_open

# Candidates between which all covariances are carried; between others only those from the new base.
_MOST_COVARIANCES = 1024
# Components that carry the covariances beside those from the new base.
_COMPONENTS = 48
_NUMBERED = re.compile(r"(.*)\.(\d+)")


def promote(
    history: History,
    problem: Problem,
    study: str,
    candidate: int | None,
    successor: str | None,
    unlaunched: bool,
    existing: Collection[str],
    who: str,
    reason: str,
) -> Decision:
    """The decision that makes a candidate the base of the next study.

    Args:
        history: the study's facts.
        problem: of the study.
        study: its name.
        candidate: who is promoted; None for the one whose launch is complete.
        successor: name of the next study; None for this name with the next number.
        unlaunched: a person's word that it is promoted although no launch of it is complete.
        existing: names of all studies in the journal.
        who: the person.
        reason: why, in a sentence.
    Raises:
        LaunchError: a launch is under way, the candidate was not launched, has no evidence, or
            the name is taken.
    """
    check_is_open(history)
    running = history.status.launch
    if running is not None and running.outcome == "under way":
        raise LaunchError(
            f"candidate {running.candidate} is in stage {running.stage + 1} of "
            f"{len(running.stages)} of its launch; wait until the launch is complete, or end it "
            "with 'hyperzero launch --abort'"
        )
    launched = {x.candidate for x in history.status.launches if x.outcome == "complete"}
    if candidate is None and running is not None:
        candidate = running.candidate
    if candidate is None:
        raise LaunchError(
            "no launch is complete, so there is nobody to promote; launch a candidate first "
            "('hyperzero launch'), or name one and say --unlaunched (in Python unlaunched=True)"
        )
    check_candidate(history, candidate)
    if candidate not in launched and not unlaunched:
        raise LaunchError(
            f"no launch of candidate {candidate} is complete; launch it first ('hyperzero launch "
            f"--candidate {candidate}'), or say that it is promoted all the same: --unlaunched (in "
            "Python unlaunched=True)"
        )
    name = successor or next_name(study)
    if name in existing:
        raise LaunchError(f"the journal holds a study {name!r} already; give another name: --as")
    bucket = _bucket(history)
    used = problem.used_metrics
    moved = _moved(bucket, candidate)
    lacks = (used & moved.scale.isnan()).tolist()
    without = [metric for metric, is_lacking in zip(problem.metrics, lacks) if is_lacking]
    if without:
        raise LaunchError(
            f"candidate {candidate} has no evidence on {without}, or its level there may be 0; "
            "nothing can be carried relative to it: wait for readings"
        )
    levels = None
    if problem.base_levels is not None:
        before = problem.base_levels.cpu()
        change = bucket.mean[candidate].nan_to_num(0.0)
        levels = (before * (1 + before.sign() * change)).tolist()
    trace = Promoted(
        candidate=candidate,
        successor=name,
        base_levels=levels,
        unlaunched=candidate not in launched,
        who=who,
    )
    by = f" by {who}" if who else ""
    text = f"Candidate {candidate} was promoted{by}: the study goes on as {name!r}. {reason}"
    return Decision.of(history.last_round or 0, text.strip(), trace)


def next_name(study: str) -> str:
    """The name of a study's successor: ``feed.2`` after ``feed``, ``feed.3`` after that."""
    match = _NUMBERED.fullmatch(study)
    return f"{study}.2" if match is None else f"{match[1]}.{int(match[2]) + 1}"


def promoted_problem(problem: Problem, history: History) -> Problem:
    """The problem of a study's successor: the same with the promoted candidate as base."""
    promoted = _promoted(history)
    other = copy.copy(problem)
    other.base_theta = history.theta[promoted.candidate]
    other.base = problem.space.to_parameters(other.base_theta.unsqueeze(0))[0]
    if promoted.base_levels is not None:
        other.base_levels = torch.tensor(promoted.base_levels, dtype=torch.float64)
    return other


def successor_entries(history: History, study: str) -> list[Entry]:
    """The first entries of a study's successor.

    Args:
        history: the study's facts, in which a candidate was promoted.
        study: its name.
    """
    promoted = _promoted(history)
    candidate, last = promoted.candidate, history.last_round or 0
    entries: list[Entry] = [Configured(dict(history.config))]
    entries += [
        _added(new, history.candidates[_swapped(new, candidate)])
        for new in range(history.num_candidates)
    ]
    fit = history.last_fit
    carried = Carried(
        predecessor=study,
        candidate=candidate,
        round=last,
        first_round=history.first_round or 0,
        served=_served(history, candidate),
        evidence=to_compacted(carried_block(_bucket(history), candidate)),
        hyperparameters=None if fit is None else fit.plain(),
    )
    reason = (
        f"Evidence of study {study!r} up to round {last}, relative to its candidate {candidate}, "
        f"which is the base here; the base before is candidate {candidate} here"
    )
    entries.append(Decision.of(last, reason, carried))
    status = history.status
    stopped = sorted(status.stopped - {candidate})
    if stopped:
        text = f"Stopped in study {study!r} before the promotion; they are not served again"
        entries.append(Decision.of(last, text, Stopped(candidates=stopped)))
    retired = sorted(status.retired - status.stopped - {candidate})
    if retired:
        text = f"Retired in study {study!r} before the promotion"
        entries.append(Decision.of(last, text, Retired(candidates=retired)))
    entries += [d for d in history.decisions if isinstance(d.trace, SurrogateChosen)]
    # The clock of a live loop goes on.
    entries += [
        decision
        for decision in history.decisions
        if isinstance(decision.trace, Remark) and "origin" in decision.trace.facts
    ]
    return entries


def carried_block(bucket: Bucket, base: int) -> Block:
    """The evidence of a bucket relative to one of its candidates, by the successor's ids."""
    moved = _moved(bucket, base)
    ids = torch.arange(len(bucket.theta))
    has = (bucket.weight > 0).any(-1)
    has[CONTROL] = True
    has[base] = False
    rows = ids[has]
    rows = rows[torch.tensor([_swapped(i, base) for i in rows.tolist()]).argsort()]
    valid = moved.mean[rows].isfinite() & (moved.var[rows] > 0)
    source = torch.where(rows == CONTROL, base, rows)  # the old base is known as b is
    before, weight = bucket.var[source], bucket.weight[source]
    weight = torch.where(valid & (weight > 0), weight * before / moved.var[rows], 0.0)
    is_valid = weight > 0
    state = EvidenceState(
        torch.where(is_valid, weight, 0.0),
        torch.where(is_valid, moved.mean[rows], 0.0),
        torch.where(is_valid, weight.square() * moved.var[rows], 0.0),
    )
    loadings = torch.cat([moved.loadings[rows], _others(bucket, rows, base, moved.scale)], dim=1)
    part = torch.where(is_valid.unsqueeze(1), loadings * weight.unsqueeze(1), 0.0).nan_to_num(0.0)
    num, components = part.shape[:2]
    users, hours, total = _levels(bucket, base)
    width = bucket.mean.shape[1]
    return Block(
        candidates=torch.tensor([_swapped(i, base) for i in rows.tolist()]),
        state=state,
        num_rounds=bucket.num_rounds[source],
        control_loadings=Exposure(
            torch.arange(num).repeat_interleave(components),
            torch.arange(components).repeat(num),
            part.reshape(num * components, width).float(),
        ),
        levels=Levels(users, hours, total),
        dispersion=bucket.dispersion,
        round_precision=bucket.round_precision,
        num_precision_rounds=torch.ones(width, dtype=torch.long),
        waiting=Sums(*(torch.zeros(num, width, dtype=torch.float64) for _ in Sums._fields)),
    )


def _promoted(history: History) -> Promoted:
    promoted = history.status.promoted
    if promoted is None:
        raise LaunchError("no candidate of this study was promoted, so it has no successor")
    return promoted


def _bucket(history: History) -> Bucket:
    return gather(history, Pooling.of(TunerConfig(**history.config)))


def _moved(bucket: Bucket, base: int) -> Rebased:
    """The deltas of all candidates relative to one of them, by today's ids."""
    mean, var = bucket.mean.clone(), bucket.var.clone()
    mean[CONTROL], var[CONTROL] = 0.0, 0.0
    return rebase(mean, var, _with_base(bucket, base), base, _sign(bucket))


def _with_base(bucket: Bucket, base: int) -> Tensor:
    """Covariance of each delta with the base's that the controls cause, ``(candidates, metrics)``.

    In tiles, because all pairs of many candidates would not fit into memory.
    """
    columns = torch.zeros_like(bucket.mean)
    for tile in torch.split(torch.arange(len(bucket.theta)), 256):
        others = tile[tile != base]
        shared = bucket.shared(torch.cat([torch.tensor([base]), others]))
        columns[others] = shared[:, 0, 1:].T
        columns[base] = shared[:, 0, 0]
    return columns


def _sign(bucket: Bucket) -> Tensor:
    """Signs of the control's levels; 1 where a level is not known."""
    if bucket.levels_by_metric is None:
        return torch.ones_like(bucket.dispersion)
    return torch.where(bucket.levels_by_metric < 0, -1.0, 1.0).to(bucket.dispersion)


def _others(bucket: Bucket, rows: Tensor, base: int, scale: Tensor) -> Tensor:
    """Loadings of what rows have in common beside the new base's error, ``(n, k, metrics)``."""
    order = bucket.weight[rows].sum(-1).argsort(descending=True, stable=True)
    chosen = order[:_MOST_COVARIANCES].sort().values
    with_base = _with_base(bucket, base)
    rest = remaining(bucket.shared(rows[chosen]), with_base[rows[chosen]], with_base[base], scale)
    parts = factors(rest, _COMPONENTS)
    loadings = parts.new_zeros(len(rows), *parts.shape[1:])
    loadings[chosen] = parts
    return loadings


def _levels(bucket: Bucket, base: int) -> Levels:
    """The new control's levels by hour of the day, from the old one's and the new base's delta."""
    levels = bucket.control_levels
    if levels is None:
        empty = torch.zeros(1, bucket.mean.shape[1], dtype=torch.float64)
        return Levels(empty, empty, empty)
    change = 1 + _sign(bucket) * bucket.mean[base].nan_to_num(0.0)
    return Levels(levels.users, levels.hours, levels.total * change)


def _swapped(candidate: int, promoted: int) -> int:
    """A candidate's id in the successor, and the other way round."""
    return {CONTROL: promoted, promoted: CONTROL}.get(candidate, candidate)


def _added(new: int, old: CandidateAdded) -> CandidateAdded:
    origin = old.origin
    if new == CONTROL:
        origin = "base"
    elif old.candidate == CONTROL:
        origin = "earlier base"
    return CandidateAdded(new, old.round, origin, old.theta, old.parameters)


def _served(history: History, promoted: int) -> tuple[int, ...]:
    served = history.times_served
    return tuple(served[_swapped(c, promoted)] for c in range(history.num_candidates))
