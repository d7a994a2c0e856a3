"""The verdict on a study in one sentence, and the cards of its health."""

import json
import re

import numpy as np
import pytest
from support.small_study import CONFIG, make, play, reply

import hyperzero_torch as hz
from hyperzero_torch.study.health import cards
from hyperzero_torch.study.journal import Decision
from hyperzero_torch.tuner.verdict import NOT_STARTED, verdict_on

pytestmark = pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")


def recommendation(**change):
    facts = {
        "candidate_id": 141, "parameters": {}, "criterion": "lcb", "objective_mean": 0.023,
        "objective_lcb": 0.015, "objective_ucb": 0.031, "objective_base": 0.0,
        "delta_mean": {}, "delta_var": {}, "num_rounds": 9, "reason": "the best", "proven": True,
        "prob_feasible": 0.97,
    }  # fmt: skip
    return hz.Recommendation(**facts | change)


@pytest.fixture(scope="module")
def tuner():
    tuner = make()
    play(tuner, 4)
    return tuner


def judged(tuner, **change):
    history, config = tuner.history, tuner.config
    health = cards(history, config)
    return verdict_on(history, config, health, recommendation(**change), tuner.problem)


@pytest.mark.parametrize(
    ("change", "action", "sentence"),
    [
        ({}, "launch", "Candidate 141 is better by 2.3 % [1.5, 3.1] and proven safe: launch"),
        (
            # A level of 200 over a base of 160 is 25 % more.
            {"objective_mean": 200.0, "objective_lcb": 160.0, "objective_ucb": 240.0,
             "objective_base": 160.0},
            "launch",
            "Candidate 141 is better by 25.0 % [0.0, 50.0] and proven safe: launch",
        ),
        (
            {"objective_mean": -4.0, "objective_lcb": -5.0, "objective_ucb": -3.0,
             "objective_base": -5.0},
            "launch",
            "Candidate 141 is better by 20.0 % [0.0, 40.0] and proven safe: launch",
        ),
        (
            {"proven": None},
            "launch",
            "Candidate 141 is better by 2.3 % [1.5, 3.1] and meets all guardrails with 97 %: "
            "launch",
        ),
        (
            {"proven": False},
            "keep running",
            "Candidate 141 is better by 2.3 % [1.5, 3.1] and probably safe (97 %), not yet proven: "
            "keep running until it is, or launch in stages",
        ),
        (
            {"candidate_id": 0, "leader": 7, "rounds_to_decide": 6},
            "keep running",
            "Keep running, about 6 hours",
        ),
        (
            {"candidate_id": 0, "leader": 7, "rounds_to_decide": 1},
            "keep running",
            "Keep running, about 1 hour",
        ),
        (
            {"candidate_id": 0, "leader": 7, "rounds_to_decide": 72},
            "keep running",
            "Keep running, about 3 days",
        ),
        (
            {"candidate_id": 0, "leader": 7},
            "keep running",
            "Keep running: at the present traffic no decision is in sight",
        ),
        (
            {"candidate_id": 0, "leader": 7, "rounds_to_decide": 0},
            "keep running",
            "Keep the base: all candidates so far are clearly infeasible or no better, also "
            "candidate 7, the most promising",
        ),
        (
            {"candidate_id": 0},
            "keep running",
            "Keep running: no candidate is expected to beat the base yet",
        ),
        (
            {"candidate_id": 0, "objective_mean": float("nan")},
            "keep running",
            "Keep running: there are no estimates yet",
        ),
    ],
)  # fmt: skip
def test_the_sentence(tuner, change, action, sentence):
    answer = judged(tuner, **change)
    assert (answer.action, answer.sentence) == (action, sentence)
    assert json.loads(json.dumps(answer.to_dict()))["sentence"] == sentence


def test_rounds_are_told_in_hours():
    tuner = make(config=CONFIG.model_copy(update={"rounds_per_day": 48}))
    play(tuner, 2)
    answer = judged(tuner, candidate_id=0, leader=7, rounds_to_decide=12)
    assert answer.sentence == "Keep running, about 6 hours"


def test_a_study_of_ones_own_is_judged_as_it_recommends(tuner):
    assert make().verdict() == NOT_STARTED
    best, answer = tuner.recommend(), tuner.verdict()
    assert answer.candidate == best.candidate_id
    numbers = [float(n) for n in re.findall(r"-?\d+\.\d+", answer.sentence)][:3]
    wanted = [100 * v for v in (best.objective_mean, best.objective_lcb, best.objective_ucb)]
    assert numbers == pytest.approx(wanted, abs=0.051)


def state_of(tuner, name):
    (card,) = (c for c in cards(tuner.history, tuner.config) if c.name == name)
    return card


def test_a_healthy_study_passes_everywhere(tuner):
    assert {card.state for card in cards(tuner.history, tuner.config)} == {"PASS"}
    assert state_of(tuner, "Data freshness").sentence == "the newest readings are of round 3"


def test_readings_that_stop_come_before_any_recommendation():
    tuner = make()
    play(tuner, 8)
    for _ in range(4):
        tuner.ask()
    answer = tuner.verdict()
    assert (answer.action, answer.state) == ("repair", "ACT")
    assert answer.sentence == "Readings stopped in round 8: check the pipeline"
    assert state_of(tuner, "Data freshness").state == "ACT"


def test_a_metric_that_stops_is_named():
    tuner = make()
    play(tuner, 5)
    for _ in range(4):
        plan = tuner.ask()
        arms = len(plan)
        gain = reply(plan).mean.reshape(arms, 2)[:, :1]
        count = 500.0 * np.array(plan.shares)
        tuner.tell(
            hz.Readings(
                plan.round, plan.candidate_ids, count, gain, np.ones((arms, 1)), metrics=["gain"]
            )
        )
    tuner.ask()
    answer = tuner.verdict()
    assert answer.sentence == "Readings of guard stopped in round 5: check the pipeline"
    assert state_of(tuner, "Missing metrics").state == "ACT"


def tell_part(tuner, plan, num_arms, metrics=("gain", "guard")):
    """Readings of the first arms of a plan alone."""
    answer = reply(plan)
    columns = [("gain", "guard").index(name) for name in metrics]
    count, mean, var = (
        values.reshape(len(plan), 2)[:num_arms, columns]
        for values in (answer.count, answer.mean, answer.var)
    )
    ids, many = plan.candidate_ids[:num_arms], 100 * count  # no arm is without users by chance
    tuner.tell(hz.Readings(plan.round, ids, many, mean, var, metrics=list(metrics)))


def test_a_card_never_says_that_all_report_where_most_arms_do_not():
    """From the first round on, before anything is late."""
    tuner = make()
    plan = tuner.ask()
    tell_part(tuner, plan, 2)
    card = state_of(tuner, "Missing metrics")
    assert (card.state, card.sentence) == (
        "WATCH", f"of round 0 {len(plan) - 2} of {len(plan)} arms lack readings so far"
    )  # fmt: skip
    assert card.advice
    play(tuner, 1)
    tell_part(tuner, tuner.ask(), 2)
    assert state_of(tuner, "Missing metrics").state == "PASS"  # those of round 1 came, too


def test_a_card_says_what_is_still_awaited():
    tuner = make()
    play(tuner, 3)
    card = state_of(tuner, "Missing metrics")
    assert card.sentence == "every metric and every arm reports, up to round 2"
    plan = tuner.ask()
    tell_part(tuner, plan, len(plan) - 1, ["gain"])
    card = state_of(tuner, "Missing metrics")
    assert (card.state, card.sentence) == (
        "PASS",
        f"of round 3 no arm reports 'guard' and 1 of {len(plan)} arms lack readings so far, which "
        "is not late",
    )


def test_what_a_person_has_to_decide_comes_first(tuner):
    tuner = make()
    play(tuner, 3)
    tuner.study.pause("a holiday", by="ann")
    answer = tuner.verdict()
    assert answer.action == "decide"
    assert "paused by ann" in answer.sentence
    assert answer.next_step == "'hyperzero resume'"


def test_absurd_readings_are_for_a_person():
    tuner = make()
    play(tuner, 6)
    plan = tuner.ask()
    good = reply(plan)
    mean = good.mean.reshape(len(plan), 2).copy()
    mean[-1] *= 1e6
    count = good.count.reshape(len(plan), 2)
    tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, np.ones_like(mean)))
    assert tuner.history.quarantined
    card = state_of(tuner, "Quarantine")
    assert (card.state, tuner.verdict().action) == ("ACT", "repair")
    assert str(len(tuner.history.quarantined)) in card.sentence


def test_a_plan_that_was_not_served_and_a_spent_budget():
    budget = {"per_day": 1000.0, "users_per_round": 10_000.0}
    config = CONFIG.model_copy(
        update=hz.TunerConfig(
            plausible_lift={"gain": 0.05, "guard": 0.05}, harm_budget=budget
        ).model_dump(include={"plausible_lift"})
    )
    tuner = make(config=hz.TunerConfig(**config.model_dump() | {"harm_budget": budget}))
    play(tuner, 2)
    assert "of the day's budget is spent" in state_of(tuner, "Harm budget").sentence
    tuner.study.note("platform", "flags.json cannot be written")
    assert state_of(tuner, "Serving").state == "ACT"
    assert any(isinstance(d, Decision) for d in tuner.history.decisions)
    assert tuner.verdict().sentence == "Serving: flags.json cannot be written"
