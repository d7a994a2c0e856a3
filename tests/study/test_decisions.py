"""Decisions that change what a study goes by: rounds set aside, harm stopped, the way back."""

import numpy as np
import pytest
import torch
from support.small_study import CONFIG, make, play, reply

import hyperzero_torch as hz
from hyperzero_torch.study.decisions import Discount, StudyStatus
from hyperzero_torch.study.history import History
from hyperzero_torch.study.journal import CandidateAdded, Decision, Planned
from hyperzero_torch.study.journal.trace import DRIFT, ROLLED_BACK, STOPPED


def evidence(tuner):
    bucket = tuner.bucket()
    return bucket.mean, bucket.var, bucket.weight


def same(a, b):
    return all(torch.equal(x.nan_to_num(-1), y.nan_to_num(-1)) for x, y in zip(a, b))


def test_a_round_set_aside_counts_for_nothing_and_can_come_back():
    tuner = make()
    play(tuner, 3)
    before = evidence(tuner)
    tuner.tell(reply(tuner.ask(), twist=30.0))
    spoiled = evidence(tuner)
    tuner.study.set_aside([3], "the split was broken")
    after = evidence(tuner)
    wide = len(before[0])
    assert not same([f[:wide] for f in spoiled], before)
    assert same([f[:wide] for f in after], before)
    assert tuner.history.status.excluded_rounds == {3: "the split was broken"}
    tuner.study.reinstate([3], "it was not")
    assert same(evidence(tuner), spoiled)
    kinds = [d.kind for d in tuner.history.decisions]
    assert kinds[-2:] == ["set aside", "reinstated"]
    num_decisions = len(tuner.history.decisions)
    tuner.study.reinstate([3], "again")  # changes nothing, so nothing is written
    assert len(tuner.history.decisions) == num_decisions


def test_readings_that_arrive_for_a_round_set_aside_are_kept_but_do_not_count():
    tuner = make()
    play(tuner, 2)
    plan = tuner.ask()
    tuner.study.set_aside([plan.round], "an incident")
    before = evidence(tuner)
    assert tuner.tell(reply(plan)) == 2 * len(plan)
    assert same(evidence(tuner), before)


def test_the_next_plan_knows_of_what_was_set_aside():
    honest, spoiled = make(), make()
    for tuner in (honest, spoiled):
        play(tuner, 3)
    plan = spoiled.ask()
    spoiled.tell(reply(plan, twist=-50.0))
    spoiled.study.set_aside([3], "an incident")
    honest.ask()
    a, b = honest.ask(), spoiled.ask()
    # The same evidence; the fit may start from another hour's hyperparameters.
    assert torch.allclose(
        honest.posterior(a.theta[1:])[0], spoiled.posterior(a.theta[1:])[0], atol=1e-3
    )
    assert abs(a.control_share - b.control_share) < 0.05


def test_roll_back_returns_to_an_earlier_state_by_a_new_entry():
    tuner = make()
    play(tuner, 3)
    then = evidence(tuner)
    plan = tuner.ask()
    entries = tuner.history.num_entries
    tuner.tell(reply(plan, twist=40.0))
    play(tuner, 3, twist=40.0)
    born = {b.candidate for b in tuner.history.candidates if b.round > plan.round}
    assert born
    tuner.study.roll_back(plan.round, "the ranker was replaced by mistake")
    assert tuner.history.num_entries > entries  # nothing was deleted
    assert same([f[: len(then[0])] for f in evidence(tuner)], then)
    assert tuner.history.status.stopped == born
    after = tuner.ask()
    assert not born & set(after.candidate_ids)
    assert tuner.recommend().candidate_id not in born
    resumed = hz.Tuner.resume(tuner.journal, problem=tuner.problem)
    assert resumed.ask(after.round) == after
    play(tuner, 2)  # and life goes on: the rolled-back rounds stay aside, new ones count
    assert int(tuner.bucket().num_rounds.max()) > 0


@pytest.mark.parametrize("method", ["set_aside", "reinstate"])
def test_unknown_rounds_and_missing_reasons_are_refused(method):
    tuner = make()
    with pytest.raises(hz.RoundError, match=r"rounds \[4\] were never planned; no round was"):
        getattr(tuner.study, method)([4], "why")
    play(tuner, 1)
    with pytest.raises(hz.RoundError, match="the last planned is 0"):
        getattr(tuner.study, method)([0, 4], "why")
    with pytest.raises(hz.RoundError, match="give a reason"):
        getattr(tuner.study, method)([0], "  ")
    with pytest.raises(hz.RoundError, match="never planned"):
        tuner.study.roll_back(9, "why")
    assert not tuner.history.decisions


def test_a_stopped_candidate_is_never_served_again_nor_recommended():
    tuner = make(config=CONFIG.model_copy(update={"verification_share": 0.5}))
    play(tuner, 4)
    best = tuner.recommend().candidate_id
    stop = [best or 1, 2, 3]
    tuner.study.append(lambda history: ([Decision(4, STOPPED, "harm", {"candidates": stop})], None))
    for _ in range(4):
        plan = tuner.ask()
        assert not set(stop) & set(plan.candidate_ids)
        tuner.tell(reply(plan))
        assert tuner.recommend().candidate_id not in stop


@pytest.mark.parametrize("evidence", ["own", "pooled"])
def test_where_everyone_was_stopped_the_control_is_served(evidence):
    draws = "marginal" if evidence == "own" else "joint"
    config = CONFIG.model_copy(
        update={"evidence": evidence, "draws": draws, "proposal_probability": 0.0}
        | {"verification_share": 0.0}
    )
    tuner = make(config=config)
    play(tuner, 2)
    everyone = list(range(1, tuner.history.num_candidates))
    entry = Decision(1, STOPPED, "harm", {"candidates": everyone})
    tuner.study.append(lambda history: ([entry], None))
    plan = tuner.ask()
    assert plan.candidate_ids == (0,)
    assert plan.shares == (1.0,)


def test_a_discount_widens_old_evidence_of_one_metric():
    tuner = make()
    play(tuner, 4)
    mean, var, weight = evidence(tuner)
    details = {"metrics": [1], "before": 4, "factor": 0.25}
    entry = Decision(4, DRIFT, "the guard drifts", details)
    tuner.study.append(lambda history: ([entry], None))
    new_mean, new_var, new_weight = evidence(tuner)
    torch.testing.assert_close(new_mean, mean, equal_nan=True)
    torch.testing.assert_close(new_var[:, 0], var[:, 0], equal_nan=True)
    torch.testing.assert_close(new_var[1:, 1], 4 * var[1:, 1], equal_nan=True)
    torch.testing.assert_close(new_weight[:, 1], weight[:, 1] / 4)
    assert tuner.history.status.discounts == (Discount(4, 4, 1, 0.25),)


def test_a_roll_back_lifts_later_discounts():
    standing = StudyStatus()
    for noticed in (3, 8):
        details = {"metrics": [0], "before": noticed, "factor": 0.5}
        standing.fold(Decision(noticed, DRIFT, "why", details), 2, 1, lambda r: True)
    back = Decision(9, ROLLED_BACK, "why", {"to_round": 5, "rounds": [], "candidates": []})
    standing.fold(back, 2, 1, lambda r: True)
    assert [d.noticed for d in standing.discounts] == [3]
    assert standing.version == 3


@pytest.mark.parametrize(
    "details",
    [
        {"metrics": [0], "before": 1, "factor": 0.0},
        {"metrics": [0], "before": 1, "factor": 2.0},
        {"metrics": [0], "before": 1, "factor": "x"},
        {"metrics": ["x"], "before": 1, "factor": 0.5},
        {"metrics": [0], "before": None, "factor": 0.5},
        {},
    ],
)
def test_a_discount_that_makes_no_sense_is_corrupt(details):
    history = History(1, ["m"])
    history.extend([CandidateAdded(0, 0, "base", (0.0,), {}), Planned(0, (0,), (0,), (1.0,))])
    with pytest.raises(hz.JournalCorruptError, match="drift"):
        history.extend([Decision(0, DRIFT, "why", details)])


@pytest.mark.parametrize("named", [[7], [-1], "x", [None], [1.0], 3])
def test_rounds_that_were_never_planned_are_corrupt(named):
    history = History(1, ["m"])
    history.extend([CandidateAdded(0, 0, "base", (0.0,), {}), Planned(0, (0,), (0,), (1.0,))])
    with pytest.raises(hz.JournalCorruptError, match=r"do not exist|damaged"):
        history.extend([Decision(0, "set aside", "why", {"rounds": named})])


def test_thinking_ahead_writes_nothing_into_the_history():
    tuner = make()
    play(tuner, 1)
    branch = tuner.history.branch()
    branch.extend([Decision(0, STOPPED, "harm", {"candidates": [1]})])
    assert branch.status.stopped == {1}
    assert not tuner.history.status.stopped
    assert not tuner.history.decisions


@pytest.mark.parametrize("wrong", [1.0, True, "1", None, float("nan")])
def test_rounds_that_are_no_whole_numbers_are_refused_before_anything_is_written(wrong):
    tuner = make()
    play(tuner, 2)
    for call in (tuner.study.set_aside, tuner.study.reinstate):
        with pytest.raises(hz.RoundError, match="whole numbers"):
            call([0, wrong], "why")
    with pytest.raises(hz.RoundError, match="whole numbers"):
        tuner.study.roll_back(wrong, "why")
    assert not tuner.history.decisions


def test_rounds_of_numpy_are_taken(tmp_path):
    tuner = make(f"sqlite:///{tmp_path / 'study.db'}")
    play(tuner, 2)
    tuner.study.set_aside(np.array([1]), "an incident")
    tuner.study.roll_back(np.int64(1), "why")
    resumed = hz.Tuner.resume(f"sqlite:///{tmp_path / 'study.db'}", problem=tuner.problem)
    assert resumed.history.status.excluded_rounds.keys() == {1}


def test_who_retired_in_what_was_rolled_back_competes_again():
    tuner = make(config=CONFIG.model_copy(update={"retire_after": 2}))
    play(tuner, 7)
    assert tuner.history.status.retired
    tuner.study.roll_back(1, "broken readings")
    assert not tuner.history.status.retired
    assert set(tuner.history.idle) == {0}
