"""Switches in Python: their effect on plans, on resumed studies, and on every later round."""

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_study import CONFIG, make, play, reply

import hyperzero_torch as hz
from hyperzero_torch.report.data.decisions import switches
from hyperzero_torch.report.data.facts import collect
from hyperzero_torch.study.journal import Decision
from hyperzero_torch.study.journal.trace import Remark
from hyperzero_torch.study.switch_state import Pin
from hyperzero_torch.tuner.switches import Shares, with_pins

pytestmark = pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")


def by_candidate(plan):
    return dict(zip(plan.candidate_ids, plan.shares))


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_pins_are_kept_to_the_digit_and_shares_sum_to_one(data):
    num = data.draw(st.integers(1, 12))
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=num + 1, max_size=num + 1))
    ids = data.draw(st.lists(st.integers(1, 40), min_size=num, max_size=num, unique=True))
    pinned = data.draw(st.lists(st.integers(41, 50), max_size=4, unique=True))
    pins = {c: Pin(data.draw(st.floats(0.001, 0.2)), "anna") for c in pinned}
    shares = tuple(w / sum(weights) for w in weights)
    planned = Shares(torch.tensor(sorted(ids)), torch.ones(num, dtype=torch.long), shares)
    got = with_pins(planned, pins, torch.zeros(51, dtype=torch.long))
    assert sum(got.shares) == pytest.approx(1, abs=1e-12)
    assert min(got.shares) >= 0
    assert got.arms.tolist() == sorted([*ids, *pinned])
    share_of = dict(zip(got.arms.tolist(), got.shares[1:]))
    assert all(share_of[c] == pin.share for c, pin in pins.items())
    for c, before in zip(sorted(ids), shares[1:]):  # nobody gains by another's pin
        assert share_of[c] <= before + 1e-12
    rest = 1 - sum(pin.share for pin in pins.values())
    if shares[0] < rest:
        assert got.shares[0] == pytest.approx(shares[0])
    if not pins:
        assert got == planned


@given(
    thrown=st.lists(
        st.tuples(
            st.sampled_from(["pause", "withdraw", "resume", "stop", "readmit", "pin", "unpin"]),
            st.integers(1, 8),
        ),
        max_size=8,
    )
)
@settings(max_examples=25, deadline=None)
def test_whatever_is_thrown_the_plan_obeys_and_a_resumed_study_plans_the_same(thrown):
    tuner = make()
    play(tuner, 1)
    for switch, candidate in thrown:
        arguments = {
            "stop": ([candidate],), "readmit": ([candidate],), "pin": (candidate, 0.05),
            "unpin": (candidate,),
        }.get(switch, ())  # fmt: skip
        before = tuner.history.num_entries
        try:
            getattr(tuner.study, switch)(*arguments, "why")
        except hz.RoundError:
            assert tuner.study.sync().num_entries == before
    other = hz.Tuner(tuner.problem, CONFIG)
    other.load_state_dict(tuner.state_dict())
    last, plan = tuner.study.plan(0), tuner.ask()
    assert other.ask() == plan
    status, shares = tuner.history.status, by_candidate(plan)
    assert not status.stopped & set(plan.candidate_ids)
    assert sum(plan.shares) == pytest.approx(1, abs=1e-9)
    if status.switches.mode == "withdrawn":
        assert shares == {0: 1.0}
    elif status.switches.mode == "paused":
        kept = by_candidate(last)
        assert all(shares[c] == kept[c] for c in shares if c)
        assert set(shares) == set(kept) - status.stopped
    else:
        assert all(shares[c] == pin.share for c, pin in status.switches.pins.items())


def test_pins_hold_with_a_model_too():
    tuner = make()
    play(tuner, 3)
    candidate = tuner.ask().candidate_ids[2]
    tuner.study.pin(candidate, 0.07, "a promise", "anna")
    for _ in range(3):
        plan = tuner.ask(tuner.history.last_round + 1)
        assert tuner.history.plans[plan.round].trace.fit_succeeded is not None
        assert by_candidate(plan)[candidate] == 0.07
        tuner.tell(reply(plan))


def test_a_pin_ends_where_the_candidate_breaks_a_guardrail():
    tuner = make()
    plan = tuner.ask()
    tuner.study.pin(3, 0.2, "a promise")
    for _ in range(12):
        plan = tuner.ask(plan.round + 1)
        readings = reply(plan)
        mean = torch.tensor(readings.mean).reshape(len(plan), 2).clone()
        if 3 in plan.candidate_ids:
            mean[plan.candidate_ids.index(3), 1] *= 0.5  # far beyond guard >= -5 %
        count = torch.tensor(readings.count).reshape(len(plan), 2)
        tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.ones_like(mean)))
    assert 3 in tuner.stopped
    assert 3 not in tuner.history.status.switches.pins
    assert 3 not in tuner.ask(plan.round + 1).candidate_ids


def test_approval_is_per_candidate_and_ends_with_a_rollback():
    config = CONFIG.model_copy(update={"approval_above": 0.3})
    tuner = make(config=config)
    play(tuner, 2)
    tuner.study.pin(4, 0.35, "a promise", "anna")
    last = by_candidate(tuner.study.plan(1))
    with pytest.warns(hz.TunerWarning, match="a plan would raise candidate 4"):
        plan = tuner.ask(by="berta")
    assert by_candidate(plan) == last
    assert tuner.history.status.switches.waiting.proposers == ("anna", "berta")
    tuner.tell(reply(plan))  # readings of the plan that was served
    tuner.study.approve("fine", by="carl")
    assert by_candidate(tuner.ask(by="berta"))[4] == 0.35
    tuner.study.roll_back(2, "a mistake")
    assert by_candidate(tuner.ask(by="berta")).get(4, 0) < 0.35


def test_what_no_longer_exceeds_the_limit_waits_no_more():
    tuner = make(config=CONFIG.model_copy(update={"approval_above": 0.3}))
    play(tuner, 2)
    tuner.study.pin(4, 0.35, "a promise", "anna")
    tuner.ask(by="berta")
    tuner.study.unpin(4, "no promise")
    plan = tuner.ask(by="berta")
    assert tuner.history.plans[plan.round].trace.held is None
    assert tuner.history.status.switches.waiting is None
    with pytest.raises(hz.RoundError, match="no plan waits"):
        tuner.study.approve("fine", by="carl")


def test_explain_and_the_report_know_held_rounds(tmp_path):
    tuner = make()
    play(tuner, 3)
    tuner.study.pause("a release", "anna")
    play(tuner, 1)
    tuner.study.withdraw("an incident", "berta")
    play(tuner, 1)
    tuner.study.resume("over", "carl")
    tuner.study.stop(2, "it crashes", "dora")
    play(tuner, 1)
    for round_ in (3, 4, 5):
        assert tuner.explain(round_).round == round_
    rows = switches(collect(tuner))
    assert [*rows.column("switch")] == ["stopped by hand", "resumed", "traffic withdrawn", "paused"]
    assert [*rows.column("by")] == ["dora", "carl", "berta", "anna"]


def test_who_threw_a_switch_is_the_login_name_by_default(monkeypatch):
    monkeypatch.setenv("LOGNAME", "berta")
    tuner = make()
    tuner.ask()
    tuner.study.pause("a release")
    assert tuner.decisions[-1].trace.by == "berta"
    assert tuner.decisions[-1].reason == "a release"


def test_a_remark_of_an_earlier_version_under_such_a_name_stays_a_remark():
    remark = Decision(3, "paused", "the intern noted it", {"who": "intern"})
    assert isinstance(remark.trace, Remark)
    tuner = make()
    play(tuner, 1)
    tuner.journal.append(tuner.study.name, [remark], after=tuner.history.num_entries)
    tuner.study.sync()
    assert tuner.history.status.switches.mode == "running"
    with pytest.raises(hz.ConfigError, match="must not be empty or one of"):
        tuner.study.note("paused", "a person's remark today")


def test_a_branch_of_the_history_is_not_changed_by_a_switch():
    tuner = make()
    play(tuner, 1)
    branch = tuner.history.branch()
    tuner.study.pause("a release")
    assert branch.status.switches.mode == "running"
    again = copy.deepcopy(tuner.history.status).copy()
    assert again.switches == tuner.history.status.switches


def test_withdrawn_and_resumed_no_candidate_is_taken_for_missing():
    tuner = make()
    play(tuner, 4)
    tuner.study.withdraw("an incident")
    play(tuner, 6)
    tuner.study.resume("over")
    with warnings.catch_warnings():
        warnings.simplefilter("error", hz.TunerWarning)
        play(tuner, 4)
    assert not [d for d in tuner.decisions if d.kind in ("missing", "sample ratio", "withdrawn")]
    assert len(tuner.ask()) > 2
