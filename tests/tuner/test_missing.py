"""Missing metrics, silent arms and lost users: seen, said, and acted on."""

import logging
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.study.findings import findings
from hyperzero_torch.study.journal.missing_trace import (
    ReadingsMissing,
    SampleRatioMismatch,
    Withdrawn,
)
from hyperzero_torch.study.silence import silences
from hyperzero_torch.tuner.oversight import towards_control

# What these tests provoke; two of them ask for the warnings themselves.
pytestmark = pytest.mark.filterwarnings(
    "ignore:round .*(Missing|Sample ratio mismatch|Withdrawn):hyperzero_torch.TunerWarning"
)
F64 = torch.float64
CONFIG = hz.TunerConfig(
    num_draws=100, num_samples=64, num_starts=0, num_proposals=2, initial_candidates=8,
    verification_share=0.0,
    drift_alpha=None,
)  # fmt: skip
METRICS = ["gain", "guard", "third"]


def make(constraints=("guard >= -5%",), config=CONFIG, metrics=METRICS, objective="gain"):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    base = {"a": 0.4, "b": 0.4}
    return hz.Tuner(hz.Problem(space, base, metrics, objective, list(constraints)), config)


def rows(plan, harm=0.5, users=20_000.0, kept=None, metrics=METRICS):
    """Tidy rows of an hour, by (candidate, metric); b above 0.5 costs the guard ``harm``."""
    generator = torch.Generator().manual_seed(plan.round)
    bad = (plan.theta[:, 1] > 0.5).to(F64)
    bad[0] = 0.0
    lift = [0.05 * (plan.theta[:, 0] - 0.4), -harm * bad, 0.0 * bad]
    share = torch.tensor(plan.shares, dtype=F64)
    if kept is not None:
        share = share * torch.tensor([kept.get(c, 1.0) for c in plan.candidate_ids])
    count = torch.poisson(users * share, generator=generator)
    hour = {}
    for m, name in enumerate(metrics):
        noise = (
            torch.randn(len(plan), generator=generator, dtype=F64) * 3 / count.clamp_min(1).sqrt()
        )
        for i, c in enumerate(plan.candidate_ids):
            mean = 10 * (1 + float(lift[m % 3][i])) + float(noise[i])
            hour[c, name] = [float(count[i]), mean, 9.0]
    return hour


def tell(tuner, plan, hour):
    columns = {name: [] for name in ("round", "candidate", "metric", "count", "mean", "var")}
    for (c, metric), (count, mean, var) in hour.items():
        for column, value in zip(columns.values(), (plan.round, c, metric, count, mean, var)):
            column.append(value)
    if columns["round"]:
        tuner.tell(hz.Readings.from_frame(columns))


def without(hour, metric, how, arms=None):
    """The hour without a metric: ``"zero"`` counts, or ``"absent"`` rows."""
    hour = dict(hour)
    for c, name in list(hour):
        if name == metric and (arms is None or c in arms):
            if how == "zero":
                hour[c, name] = [0.0, 0.0, 0.0]
            else:
                del hour[c, name]
    return hour


def harmful(tuner):
    history = tuner.history
    served = {c for plan in history.plans.values() for c in plan.candidates}
    return {c.candidate for c in history.candidates if c.theta[1] > 0.5} & served - {0}


def missing(tuner):
    return [d for d in tuner.decisions if isinstance(d.trace, ReadingsMissing)]


@pytest.mark.parametrize("how", ["zero", "absent"])
def test_a_third_metric_that_stops_leaves_the_guard_on(how, caplog):
    """Stopped as soon as with it; and the silence is in the log, the journal and the plan."""
    tuner, twin = make(), make()
    for _ in range(6):
        plan, other = tuner.ask(), twin.ask()
        tell(tuner, plan, without(rows(plan), "third", how))
        tell(twin, other, rows(other))
    plan, other = tuner.ask(), twin.ask()
    first, with_silence = (
        {d.trace.candidates for d in t.decisions if d.kind == "stopped" and d.round <= 3}
        for t in (twin, tuner)
    )
    assert first
    assert with_silence == first
    assert harmful(tuner) <= {*tuner.stopped, *plan.candidate_ids}
    (said,) = missing(tuner)
    assert said.trace.metric == 2
    assert said.trace.candidates == ()
    assert said.trace.never
    assert any("'third' was never reported" in note for note in plan.notes)
    assert any("'third' was never reported" in record.message for record in caplog.records)
    assert plan.to_dict()["notes"] == list(plan.notes)
    assert tuner.ask(plan.round) == plan
    assert tuner.recommend().candidate_id in tuner.history.plans[0].candidates + tuple(range(100))
    assert not twin.ask().notes
    assert not missing(twin)


def test_each_remark_on_what_is_missing_is_warned_of_once_and_says_what_the_journal_says():
    """The guard's rows stop, and one arm has no users: both as warnings of ``ask``."""
    tuner, lost = make(), None
    messages = []
    for _ in range(9):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            plan = tuner.ask()
        assert all(w.category is hz.TunerWarning for w in caught)
        assert all(w.filename == __file__ for w in caught)
        messages += [str(w.message) for w in caught]
        lost = plan.candidate_ids[1] if lost is None else lost
        hour = rows(plan, harm=0.0, kept={lost: 0.3})
        tell(tuner, plan, hour if plan.round < 3 else without(hour, "third", "zero"))
    kinds = ReadingsMissing | SampleRatioMismatch | Withdrawn
    journaled = [
        f"round {d.round}: {d.reason}" for d in tuner.decisions if isinstance(d.trace, kinds)
    ]
    assert any("Missing: metric 'third' is no longer reported" in m for m in messages)
    assert any("ample ratio mismatch" in m for m in messages)
    assert sorted(m for m in messages if m in journaled) == sorted(journaled)
    assert len(set(messages)) == len(messages)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuner.ask(plan.round)  # the same plan again warns of nothing


def test_a_metric_that_is_late_as_usual_is_no_alarm():
    """The third metric comes three rounds later, every time."""
    tuner, waiting = make(), {}
    for _ in range(14):
        plan = tuner.ask()
        hour = rows(plan, harm=0.0)
        waiting[plan.round] = {k: v for k, v in hour.items() if k[1] == "third"}, plan
        tell(tuner, plan, without(hour, "third", "absent"))
        late = waiting.pop(plan.round - 3, None)
        if late:
            tell(tuner, late[1], late[0])
    assert not missing(tuner)


def test_a_metric_that_stops_for_some_arms_is_an_alarm_and_limits_them():
    tuner = make()
    silent = set()
    for _ in range(5):
        plan = tuner.ask()
        silent = silent or set(plan.candidate_ids[1:4])
        tell(tuner, plan, without(rows(plan, harm=0.0), "guard", "zero", silent))
    plan = tuner.ask()
    shares = dict(zip(plan.candidate_ids, plan.shares))
    limit = CONFIG.newcomer_slots / CONFIG.num_draws
    assert all(shares.get(c, 0.0) <= limit + 1e-12 for c in silent)
    assert sum(shares.values()) == pytest.approx(1)
    assert tuner.recommend().candidate_id not in silent
    named = {c for d in missing(tuner) if d.trace.metric == 1 for c in d.trace.candidates}
    served_twice = {c for c in silent if tuner.history.times_served[c] > 2}
    assert served_twice <= named <= silent


def test_harmful_arms_do_not_win_by_omitting_the_guardrails_metric():
    """Those with b above 0.5 gain, harm the guard, and do not report it."""
    tuner = make()
    limit = CONFIG.newcomer_slots / CONFIG.num_draws
    for _ in range(10):
        plan = tuner.ask()
        bad = {c for c, row in zip(plan.candidate_ids, plan.theta) if c and row[1] > 0.5}
        shares = dict(zip(plan.candidate_ids, plan.shares))
        old = [c for c in bad if tuner.history.times_served[c] > 1]
        assert all(shares[c] <= limit + 1e-12 for c in old)
        hour = rows(plan)
        for c in bad:
            hour[c, "gain"][1] *= 1.3
        tell(tuner, plan, without(hour, "guard", "absent", bad))
    best = tuner.recommend().candidate_id
    assert best == 0 or tuner.history.candidates[best].theta[1] <= 0.5


def test_without_readings_traffic_goes_back_to_the_control_and_returns():
    tuner = make()
    for _ in range(6):
        plan = tuner.ask()
        tell(tuner, plan, rows(plan, harm=0.0))
    before = tuner.ask()
    num = tuner.history.num_candidates
    control = [before.control_share]
    for _ in range(8):
        control.append(tuner.ask().control_share)
    assert tuner.history.num_candidates <= num + 2 * CONFIG.num_proposals + 2  # before the alarm
    assert control[-1] > 0.95
    assert all(b >= a - 0.05 for a, b in pairwise(control[1:]))
    treated = [1 - share for share in control]
    assert treated[3] == pytest.approx(treated[2] / 2, rel=0.5)
    born = tuner.history.num_candidates
    assert any("no candidate is added" in note for note in tuner.ask().notes)
    assert tuner.history.num_candidates == born
    assert len([d for d in missing(tuner) if d.trace.metric is None]) == 1
    plan = tuner.study.plan(tuner.history.last_round)
    tell(tuner, plan, rows(plan, harm=0.0))
    again = tuner.ask()
    assert again.control_share < 0.8
    assert not again.notes


def test_shares_go_back_by_half_and_sum_to_one():
    shares = (0.4, 0.4, 0.2)
    assert towards_control(shares, 1.0) == shares
    half = towards_control(shares, 0.5)
    assert half == pytest.approx((0.7, 0.2, 0.1))
    assert sum(towards_control(shares, 0.5**30)[1:]) == pytest.approx(0.02)
    assert towards_control((1.0,), 0.25) == (1.0,)


def test_an_arm_that_loses_users_is_withdrawn_and_others_are_not():
    tuner = make(config=CONFIG.model_copy(update={"num_proposals": 1, "newcomer_slots": 8}))
    lost = None
    for _ in range(20):
        plan = tuner.ask()
        if lost is None:
            lost = plan.candidate_ids[2]
        tell(tuner, plan, rows(plan, harm=0.0, kept={lost: 0.6}))
        if lost in tuner.stopped:
            break
        if lost not in plan.candidate_ids and plan.round > 4:
            break
    plan = tuner.ask()
    withdrawn = [d for d in tuner.decisions if isinstance(d.trace, Withdrawn)]
    assert {c for d in withdrawn for c in d.trace.candidates} <= {lost}
    assert any(isinstance(d.trace, SampleRatioMismatch) for d in tuner.decisions)
    served = tuner.history.times_served[lost]
    if served >= 4:
        (decision,) = withdrawn
        assert decision.trace.counted / decision.trace.expected == pytest.approx(0.6, abs=0.1)
        assert lost not in plan.candidate_ids
        assert lost in tuner.stopped
        assert any("loses users" in f.what for f in findings(tuner.history))


def test_users_that_follow_the_shares_and_metrics_of_some_users_raise_nothing():
    """The third metric is counted over a part of the users that differs by arm."""
    tuner = make()
    for _ in range(10):
        plan = tuner.ask()
        hour = rows(plan, harm=0.0)
        for (c, metric), row in hour.items():
            if metric == "third":
                row[0] = float(round(row[0] * (0.1 + 0.02 * (c % 5))))
        tell(tuner, plan, hour)
    kinds = {type(d.trace) for d in tuner.decisions}
    assert not kinds & {Withdrawn, SampleRatioMismatch}


def test_counts_that_are_no_users_withdraw_nobody():
    """Every arm reports the same count, whatever its share: the split is doubted, no arm is."""
    tuner = make()
    for _ in range(8):
        plan = tuner.ask()
        hour = {key: [500.0, *row[1:]] for key, row in rows(plan, harm=0.0).items()}
        tell(tuner, plan, hour)
    assert not tuner.stopped
    assert any(isinstance(d.trace, SampleRatioMismatch) for d in tuner.decisions)
    assert any("sample ratio mismatch" in f.what for f in findings(tuner.history))


def test_a_guardrail_on_a_delta_does_not_wait_for_another_metrics_level():
    """The level of the third metric is never known; the guard on the second stops all the same."""
    tuner = make(("guard >= -5%", "level(third) <= 100"))
    for _ in range(3):
        plan = tuner.ask()
        tell(tuner, plan, without(rows(plan), "third", "absent"))
    tuner.ask()
    assert harmful(tuner) & set(tuner.history.plans[0].candidates) <= set(tuner.stopped)
    assert tuner.stopped
    assert tuner.recommend().candidate_id == 0


def test_callables_depend_on_the_metrics_that_move_them():
    def guard(delta):
        return delta[..., 1] + 0.05

    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0)])
    problem = hz.Problem(
        space, {"a": 0.4}, METRICS, lambda d: d[..., 0], [hz.Constraint(guard, at_least=0.0)]
    )
    assert problem.used_metrics.tolist() == [True, True, False]
    assert problem.guarded_metrics.tolist() == [[False, True, False]]
    assert not problem.level_metrics.any()
    constant = hz.Problem(space, {"a": 0.4}, METRICS, lambda d: 0 * d[..., 0])
    assert constant.used_metrics.all()  # no dependence shows, so all of them may matter


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from("rza"), min_size=3, max_size=3), min_size=1, max_size=9))
def test_any_pattern_of_missing_metrics_is_planned_and_a_metric_that_reports_is_not_missed(pattern):
    """r: reported, z: rows of no users, a: no rows; one letter per metric and round."""
    tuner = make(config=CONFIG.model_copy(update={"num_draws": 30, "initial_candidates": 3}))
    for letters in pattern:
        plan = tuner.ask()
        hour = rows(plan, harm=0.0)
        for metric, letter in zip(METRICS, letters):
            if letter != "r":
                hour = without(hour, metric, "zero" if letter == "z" else "absent")
        tell(tuner, plan, hour)
    plan = tuner.ask()
    assert sum(plan.shares) == pytest.approx(1)
    last = pattern[-1]
    for silence in silences(tuner.history):
        if not silence.candidates:
            assert all(
                letter != "r" for m, letter in enumerate(last) if silence.metric in (None, m)
            )


def test_remarks_of_people_under_the_new_kinds_still_open():
    logging.getLogger("hyperzero_torch").debug("kinds were free before")
    journal = hz.MemoryJournal()
    tuner = hz.Tuner(make().problem, CONFIG, journal)
    tuner.ask()
    from hyperzero_torch.study.journal import Decision

    after = tuner.history.num_entries
    journal.append("default", [Decision(0, "missing", "a note of old", {"hour": 3})], after)
    again = hz.Tuner(make().problem, None, journal)
    assert again.decisions[-1].trace.facts == {"hour": 3}
    with pytest.raises(hz.ConfigError, match="kind"):
        again.study.note("missing", "not by hand any more")
