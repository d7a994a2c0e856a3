"""An explanation is what was known when the plan was made, not what came later."""

import json

import pytest
import torch
from support.small_study import make, play, reply

import hyperzero_torch as hz


def test_an_explanation_is_of_the_time_of_the_plan():
    tuner = make()
    play(tuner, 4)
    plan = tuner.ask()
    before = tuner.explain(4)
    tuner.tell(reply(plan))
    play(tuner, 2)
    after = tuner.explain(4)
    assert before == after
    assert [arm.candidate for arm in after.arms] == list(plan.candidate_ids)
    assert [arm.share for arm in after.arms] == list(plan.shares)
    assert all(r.round < 4 for arm in after.arms for r in arm.readings)
    assert sum(arm.prob_best for arm in after.arms) == pytest.approx(1)
    assert all(0 <= arm.prob_feasible <= 1 for arm in after.arms)
    json.dumps(after.to_dict())


def test_it_says_what_a_tuner_of_that_time_believed():
    tuner = make()
    play(tuner, 4)
    plan = tuner.ask()
    mean, var = tuner.posterior(plan.theta)
    play(tuner, 0)
    tuner.tell(reply(plan))
    for row, arm in enumerate(tuner.explain(4).arms[1:], start=1):
        believed = torch.tensor([list(pair) for pair in arm.delta.values()], dtype=torch.float64)
        torch.testing.assert_close(believed[:, 0], mean[row], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(believed[:, 1], var[row].sqrt(), rtol=1e-6, atol=1e-9)


def test_every_arm_has_a_reason_and_the_readings_behind_it():
    tuner = make()
    play(tuner, 5)
    first, last = tuner.explain(0), tuner.explain()
    assert last.round == 4
    assert all(arm.why for arm in (*first.arms, *last.arms))
    assert "the control" in first.arms[0].why[0]
    assert "traffic is split evenly" in first.arms[1].why[0]
    assert first.arms[1].prob_best is None
    newcomers = [arm for arm in last.arms if not arm.readings and arm.candidate]
    assert all("never served" in " ".join(arm.why) for arm in newcomers)
    seen = next(arm for arm in last.arms if arm.candidate and arm.readings)
    for behind in seen.readings:
        table = tuner.history.tables[behind.round]
        assert behind.users == table.count[table.row[seen.candidate]].max()


def test_rounds_set_aside_are_marked():
    tuner = make()
    play(tuner, 3)
    tuner.study.set_aside([1], "an incident")
    tuner.ask()
    marks = {r.round: r.counts for r in tuner.explain().arms[0].readings}
    assert marks == {0: True, 1: False, 2: True}


def test_a_round_that_was_never_planned_is_refused():
    tuner = make()
    with pytest.raises(hz.RoundError, match="no round was planned yet"):
        tuner.explain()
    tuner.ask()
    with pytest.raises(hz.RoundError, match="round 7 was never planned; rounds 0 to 0 were"):
        tuner.explain(7)
