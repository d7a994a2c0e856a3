"""Hours whose users do not fit their shares, and arms whose rows never come."""

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.study.journal.missing_trace import SampleRatioMismatch, Withdrawn
from hyperzero_torch.study.journal.trace import RoundsExcluded

F64 = torch.float64
CONFIG = hz.TunerConfig(
    num_draws=100, num_samples=64, num_starts=0, num_proposals=2, initial_candidates=6,
    drift_alpha=None, max_share=0.2, verification_share=0.0,
)  # fmt: skip
SPACE = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
PROBLEM = hz.Problem(SPACE, {"a": 0.4, "b": 0.4}, ["gain", "guard"], "gain", ["guard >= -20%"])


def make(**changes):
    return hz.Tuner(PROBLEM, CONFIG.model_copy(update=changes))


def readings(plan, kept=None, absent=(), users=40_000.0, lift=0.0):
    """An hour's message; ``kept`` is the fraction of an arm's users that is counted."""
    generator = torch.Generator().manual_seed(plan.round)
    kept = kept or {}
    share = torch.tensor([s * kept.get(c, 1.0) for c, s in zip(plan.candidate_ids, plan.shares)])
    count = torch.poisson(users * share, generator=generator).to(F64)
    rows = [i for i, c in enumerate(plan.candidate_ids) if c not in absent]
    noise = torch.randn(len(plan), 2, generator=generator, dtype=F64) * 3
    mean = 10 + noise / count.sqrt().unsqueeze(1)
    mean[1:] *= 1 + lift
    return hz.Readings(
        round=plan.round,
        candidate_ids=[plan.candidate_ids[i] for i in rows],
        count=count[rows].unsqueeze(1).expand(-1, 2),
        mean=mean[rows],
        var=torch.full((len(rows), 2), 9.0, dtype=F64),
    )


def values_of(message, plan):
    """Mean and variance as the message has them, ``(arms, metrics)``."""
    return (torch.as_tensor(v).reshape(len(plan), 2) for v in (message.mean, message.var))


def run(tuner, hours, **message):
    for _ in range(hours):
        plan = tuner.ask()
        tuner.tell(readings(plan, **message))


def excluded(tuner):
    return [d for d in tuner.decisions if isinstance(d.trace, RoundsExcluded)]


def test_a_broken_hour_counts_for_nothing_until_a_person_lets_it():
    """Half of the control's users are lost in one hour, in which all arms look 30 % better."""
    tuner, twin = make(), make()
    run(tuner, 4)
    run(twin, 4)
    plan = tuner.ask()
    with pytest.warns(hz.TunerWarning, match="round 4 is excluded: sample ratio mismatch"):
        tuner.tell(readings(plan, kept={0: 0.5}, lift=0.3))
    (decision,) = excluded(tuner)
    assert decision.trace.rounds == (4,)
    assert tuner.history.status.excluded_rounds.keys() == {4}
    # Evidence is that of the four hours before, as where nothing was received.
    twin.ask()
    for name in ("mean", "var"):
        ours, theirs = getattr(tuner.bucket(), name), getattr(twin.bucket(), name)
        assert torch.equal(ours.nan_to_num(-9), theirs.nan_to_num(-9))
    with pytest.warns(hz.TunerWarning) as caught:
        plan = tuner.ask()
    assert any("ample ratio mismatch in round 4" in str(w.message) for w in caught)
    assert any("round 4" in note and "it is excluded" in note for note in plan.notes)
    assert excluded(tuner) == [decision]
    tuner.study.reinstate([4], "the control's logging was checked")
    assert float(tuner.bucket().mean[1:].nan_to_num(0.0).max()) > 0.05
    tuner.tell(readings(plan))
    tuner.ask()
    assert excluded(tuner) == [decision]  # a person has decided
    assert not tuner.history.status.excluded_rounds


def test_without_a_test_of_the_split_nothing_is_excluded():
    tuner = make(srm_alpha=None)
    run(tuner, 4)
    run(tuner, 2, kept={0: 0.5})
    assert not excluded(tuner)
    assert not tuner.ask().notes


def test_counts_that_never_fit_their_shares_exclude_nothing():
    """They are sessions, or weights: the split is doubted aloud, and the readings are used."""
    tuner = make()

    def serve():
        for _ in range(6):
            plan = tuner.ask()
            hour = readings(plan)
            count = torch.full((len(plan), 2), 500.0)
            tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, *values_of(hour, plan)))
        tuner.ask()

    with pytest.warns(hz.TunerWarning, match="ample ratio mismatch"):
        serve()
    assert not excluded(tuner)
    assert bool(tuner.bucket().tested[1:].any())


def test_a_correct_study_excludes_nothing():
    tuner = make()
    run(tuner, 12)
    assert not excluded(tuner)
    assert not [d for d in tuner.decisions if isinstance(d.trace, SampleRatioMismatch | Withdrawn)]


def test_an_arm_whose_rows_never_come_is_withdrawn_and_a_late_arm_is_not():
    tuner = make()
    gone = tuner.ask().candidate_ids[2]
    withdrawn_in = []

    def serve():
        for _ in range(12):
            plan = tuner.study.plan(tuner.history.last_round)
            tuner.tell(readings(plan, absent=(gone,)))
            plan = tuner.ask()
            if gone in tuner.stopped:
                withdrawn_in.append(plan.round)
                assert gone not in plan.candidate_ids

    with pytest.warns(hz.TunerWarning) as caught:
        serve()
    assert 3 <= withdrawn_in[0] <= 8
    (decision,) = [d for d in tuner.decisions if isinstance(d.trace, Withdrawn)]
    assert decision.trace.candidates == (gone,)
    assert decision.trace.counted == 0
    plans = list(tuner.history.plans.values())[: decision.trace.num_rounds]
    shares = [dict(zip(p.candidates, p.shares))[gone] for p in plans]
    of_counted = sum(40_000 * (1 - share) * share for share in shares)
    assert decision.trace.expected == pytest.approx(of_counted, rel=0.02)
    assert any("none was counted" in str(w.message) for w in caught)
    assert not excluded(tuner)  # the other arms' hours are sound
    assert tuner.stopped == (gone,)


def test_an_arm_that_is_always_three_hours_late_is_not_withdrawn():
    tuner = make()
    plan = tuner.ask()
    late, waiting = plan.candidate_ids[2], {}
    for _ in range(14):
        tuner.tell(readings(plan, absent=(late,)))
        if late in plan.candidate_ids:
            waiting[plan.round] = readings(plan, absent=set(plan.candidate_ids) - {late})
        if plan.round - 3 in waiting:
            tuner.tell(waiting.pop(plan.round - 3))
        plan = tuner.ask()
    assert late not in tuner.stopped
    assert not [d for d in tuner.decisions if isinstance(d.trace, Withdrawn)]


def alarms_over_all(tuner):
    return [
        d.trace
        for d in tuner.decisions
        if isinstance(d.trace, SampleRatioMismatch) and d.trace.in_round is None
    ]


@pytest.mark.filterwarnings("ignore:round:hyperzero_torch.TunerWarning")
def test_a_single_broken_hour_is_no_alarm_over_all_hours_and_several_are():
    """The control loses half of its users in one hour of twelve, or in three of them."""
    for broken in ({5}, {5, 7, 9}):
        tuner = make()
        for hour in range(12):
            run(tuner, 1, kept={0: 0.5} if hour in broken else None)
        plan = tuner.ask()
        assert {r for d in excluded(tuner) for r in d.trace.rounds} == broken
        is_alarm = any("over all hours" in note for note in plan.notes)
        assert is_alarm == bool(alarms_over_all(tuner)) == (len(broken) > 1)


@pytest.mark.filterwarnings("ignore:round|Sample ratio:hyperzero_torch.TunerWarning")
def test_a_slow_leak_is_still_an_alarm_beside_a_broken_hour():
    """3 % of the control's users are lost every hour, which no single hour shows."""
    tuner = make()
    for hour in range(16):
        run(tuner, 1, kept={0: 0.5 if hour == 5 else 0.97}, users=60_000.0)
    tuner.ask()
    assert alarms_over_all(tuner)


def test_one_word_of_the_live_loop_turns_off_both_comparisons():
    """The tuner's own setting is kept where the file names it."""
    values = {
        "parameters": [{"name": "a", "kind": "float", "low": 0, "high": 1}],
        "base": {"a": 0.5}, "metrics": ["m"], "objective": "m",
        "live": {"exposures": "e.parquet", "events": "v.parquet", "flags": "f.json"},
    }  # fmt: skip
    assert hz.StudyConfig(**values).tuner.srm_alpha == 0.0005
    values["live"]["srm_alpha"] = 0
    assert hz.StudyConfig(**values).tuner.srm_alpha is None
    assert hz.StudyConfig(**values, traffic={"srm_alpha": 0.001}).tuner.srm_alpha == 0.001
