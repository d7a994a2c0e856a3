"""Before a round is planned: which readings are missing, and do users fit the planned shares?

What is found is said in the plan's notes as long as it lasts, and in the journal once. Where all
readings are cut off, no candidate is added and traffic returns to the control, by half each round.
An arm without evidence on the metric of a guardrail gets a newcomer's traffic at most. An arm that
loses users hour after hour is withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..study import split
from ..study.history import CONTROL, History
from ..study.journal import Decision
from ..study.journal.missing_trace import ReadingsMissing, SampleRatioMismatch, Withdrawn
from ..study.silence import Silence, describe, silences
from ..study.split import Split
from .context import RoundContext
from .model import ModelState

# The treatments' least share while no readings arrive: enough to see that they arrive again.
_LEAST_TREATED = 0.02
_MAX_LISTED = 12
_WITHDRAWN, _MISSING, _CUT = "Withdrawn:", "Missing:", "no candidate is added"


class Oversight(NamedTuple):
    """What a plan has to take into account.

    ``withdrawn`` are decisions that come before the plan, ``remarks`` those that follow it.
    ``capped`` is the most that some candidates get of the traffic. ``treated`` is the factor by
    which the treatments' traffic is reduced, 1 usually; ``is_blind`` where no readings arrive.
    """

    withdrawn: list[Decision]
    remarks: list[Decision]
    notes: tuple[str, ...]
    capped: dict[int, float]
    treated: float

    @property
    def is_blind(self) -> bool:
        """Whether no readings arrive at all."""
        return self.treated < 1


def review(state: ModelState, context: RoundContext) -> Oversight:
    """Examine the readings received so far; changes nothing."""
    history, config = context.history, context.config
    silent = silences(history)
    treated, remarks, notes = 1.0, [], []
    for silence in silent:
        reason = describe(silence, history.metrics)
        if silence.metric is None and not silence.candidates:
            treated = 0.5 ** (silence.num_rounds - 1)
            reason += (
                f"; {_CUT}, and the treatments' traffic goes back to the control by "
                "half each round until readings arrive again"
            )
        notes.append(f"{_MISSING} {reason}")
        new = _not_yet_said(history, silence)
        if new is not None:
            remarks.append(Decision.of(context.round, f"{_MISSING} {reason}", new))
    comparison = split.compare(history, config.srm_alpha)
    withdrawn = [_withdraw(loss, context.round) for loss in comparison.at_fault]
    notes += [decision.reason for decision in withdrawn]
    for note, decision in _mismatches(comparison, context):
        notes.append(note)
        remarks += [decision] if decision is not None else []
    capped = _unguarded(state, history, silent)
    if capped:
        listed = f"{capped[:_MAX_LISTED]}{' ...' if len(capped) > _MAX_LISTED else ''}"
        notes.append(
            f"Unguarded: candidates {listed} have no evidence on the metric of a guardrail, or no "
            "longer report a metric; they get a newcomer's traffic at most"
        )
    most = config.newcomer_slots / config.num_draws
    return Oversight(withdrawn, remarks, tuple(notes), dict.fromkeys(capped, most), treated)


def notes_on_arms(notes: Sequence[str]) -> list[str]:
    """A plan's notes on metrics and arms.

    The live loop tests the split of each hour itself, and says when it has no readings at all.
    """
    return [note for note in notes if note.startswith((_WITHDRAWN, _MISSING)) and _CUT not in note]


def towards_control(shares: tuple[float, ...], treated: float) -> tuple[float, ...]:
    """Shares, the control's first, with the treatments' reduced by a factor; they sum to 1."""
    total = sum(shares[1:])
    if treated >= 1 or not total:
        return shares
    factor = min(1.0, max(treated, _LEAST_TREATED / total))
    treatments = tuple(factor * share for share in shares[1:])
    return (1.0 - sum(treatments), *treatments)


def _not_yet_said(history: History, silence: Silence) -> ReadingsMissing | None:
    """The trace of a remark on what the journal does not say yet of this silence."""
    named: set[int] = set()
    for decision in reversed(history.decisions):
        trace = decision.trace
        if decision.round < silence.since:
            break
        if isinstance(trace, ReadingsMissing) and trace.metric == silence.metric:
            if bool(trace.candidates) == bool(silence.candidates) and not silence.candidates:
                return None
            named.update(trace.candidates)
    new = tuple(c for c in silence.candidates if c not in named)
    if silence.candidates and not new:
        return None
    return ReadingsMissing(
        metric=silence.metric,
        candidates=new,
        since=silence.since,
        last=silence.last,
        never=silence.never,
    )


def _withdraw(loss: split.Loss, round_: int) -> Decision:
    kept = loss.counted / loss.expected if loss.expected else 0.0
    counted = f"{loss.counted:,.0f} were counted" if loss.counted else "none was counted"
    reason = (
        f"{_WITHDRAWN} candidate {loss.candidate} loses users: {counted} over {loss.num_rounds} "
        f"rounds, {loss.expected:,.0f} expected by its shares ({kept:.1%}), while the other arms "
        "fit theirs. It may crash, or its exposures are not logged; it is not served again"
    )
    trace = Withdrawn(
        candidates=(loss.candidate,),
        log_e_value=loss.log_e_value,
        needed=loss.needed,
        expected=loss.expected,
        counted=loss.counted,
        num_rounds=loss.num_rounds,
    )
    return Decision.of(round_, reason, trace)


def _mismatches(comparison: Split, context: RoundContext) -> Iterator[tuple[str, Decision | None]]:
    """Notes on users that do not fit the shares; and decisions on those not journaled yet.

    An hour is journaled where the hour before was not amiss: of a stretch its first.
    """
    history = context.history
    earlier = [d.trace for d in history.decisions if isinstance(d.trace, SampleRatioMismatch)]
    journaled = {trace.in_round for trace in earlier}
    amiss = [hour.round for hour in comparison.hours]
    rounds = sorted(history.plans)
    for hour in comparison.hours[-1:]:
        note = (
            f"Sample ratio mismatch in round {hour.round}: p = {hour.p_value:.2g}; candidate "
            f"{hour.candidate} deviates most, {hour.expected:,.0f} users expected, "
            f"{hour.counted:,.0f} counted"
        )
        if len(amiss) > 1:
            note += f"; {len(amiss)} of the last {comparison.num_hours} rounds do not fit"
        if hour.round in history.status.excluded_rounds:
            note += "; it is excluded"
        previous = [r for r in rounds if r < hour.round][-1:]
        continues = bool(previous) and previous[0] in amiss and bool(journaled & set(amiss))
        decision = None
        if hour.round not in journaled and not continues:
            trace = SampleRatioMismatch(
                in_round=hour.round, p_value=hour.p_value, candidates=(hour.candidate,)
            )
            decision = Decision.of(context.round, note, trace)
        if hour.round >= rounds[-1] - context.config.rounds_per_day or decision is not None:
            yield note, decision
    if comparison.is_alarm:
        losing = [loss.candidate for loss in comparison.losses][:_MAX_LISTED]
        what = f"users do not follow the planned shares (log e-value {comparison.log_e_value:.1f}"
        what += f", needed {comparison.needed:.1f})"
        if comparison.log_e_value < comparison.needed:
            what = f"candidates {losing} lose users, too many for their own fault"
        note = (
            f"Sample ratio mismatch over all hours: {what}. Check that the platform serves every "
            "plan from its first minute, that users are assigned anew each round, and that counts "
            "are users"
        )
        decision = None
        if None not in journaled:
            trace = SampleRatioMismatch(
                in_round=None,
                log_e_value=comparison.log_e_value,
                candidates=tuple(loss.candidate for loss in comparison.losses),
            )
            decision = Decision.of(context.round, note, trace)
        yield note, decision


def _unguarded(state: ModelState, history: History, silent: list[Silence]) -> list[int]:
    """Candidates that report, but not the metric of a guardrail, or that no longer do."""
    problem, bucket = state.problem, state.bucket
    if not len(bucket.theta):
        return []
    guarded = problem.guarded_metrics.any(0)
    has = bucket.weight > 0
    unguarded = has.any(-1) & ~has[:, guarded].all(-1)
    silent_everywhere = {s.metric for s in silent if not s.candidates}
    for metric in guarded.nonzero().flatten().tolist():
        if metric in silent_everywhere:  # it will not be measured on newcomers either
            unguarded |= ~has[:, metric]
    used = problem.used_metrics
    for silence in silent:
        if silence.candidates and (silence.metric is None or bool(used[silence.metric])):
            unguarded[list(silence.candidates)] = True
    unguarded[CONTROL] = False
    ids: list[int] = unguarded.nonzero().flatten().tolist()
    return [c for c in ids if c not in history.status.stopped]
