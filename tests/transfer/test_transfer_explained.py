"""An explanation of a round says what was made of other domains, and of what was not done."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.transfer_study import make, play, reply, source

from hyperzero_torch.study.journal.trace import TransferTrace
from hyperzero_torch.transfer.decision import choice, sentences


@pytest.fixture
def study(told_study):
    return told_study


def test_facts_reasons_and_the_alternative_of_a_round_are_told(study):
    explanation = study.explain(8)
    facts = study.history.plans[8].trace.transfer.plain()
    assert explanation.transfer == facts
    assert facts["used"]
    text = "\n".join(explanation.remarks)
    assert f"sources are used for {', '.join(facts['metrics'])}: {facts['reason']}" in text
    assert "alternative not chosen: a cold start" in text
    for metric, one in facts["held_out"].items():
        assert f"{metric} {one['transferred'] - one['cold']:+.2f}" in text
    for name, one in facts["sources"].items():
        line = next(r for r in explanation.remarks if r.startswith(f"source {name}: "))
        assert all(f"{w:.2f} " in line for w in one["weight"])
    assert explanation.remarks[-1].startswith("sources are overridden: forbid reversed")
    json.dumps(explanation.to_dict())


def test_the_latest_overrule_before_the_round_is_the_one_told(study):
    assert "discount north = 0.5" in study.explain(6).remarks[-1]
    assert not any("overridden" in r for r in study.explain(3).remarks)


def test_the_first_round_tells_of_its_design(study):
    explanation = study.explain(0)
    assert "seeds" in explanation.transfer
    assert any(r.startswith("alternative not chosen: ") for r in explanation.remarks)


def test_a_turn_that_was_journaled_with_a_plan_is_a_remark(study):
    (turn,) = [d for d in study.history.decisions if d.kind == "transfer"][:1]
    assert turn.reason in study.explain(turn.round).remarks


def test_an_explanation_stays_the_same_when_more_is_known(tmp_path):
    tuner = make(tmp_path)
    play(tuner, 3)
    plan = tuner.ask()
    before = tuner.explain(3)
    tuner.tell(reply(tuner, plan))
    play(tuner, 1)
    assert tuner.explain(3) == before


@pytest.fixture(scope="module")
def helped(tmp_path_factory):
    """Six rounds with two sources that suggest candidates."""
    given = [source("north", seed=0, num=60), source("east", seed=1, num=60)]
    tuner = make(tmp_path_factory.mktemp("helped"), given=given)
    play(tuner, 6)
    return tuner


def test_suggested_candidates_say_so(helped):
    explanation = helped.explain(5)
    born = {b.candidate: b.origin for b in helped.history.candidates}
    suggested = [arm for arm in explanation.arms if born[arm.candidate] == "transferred"]
    for arm in explanation.arms:
        assert ("suggested by other domains" in arm.why) == (arm in suggested)
        assert len(arm.why) > (arm in suggested)
    assert len(helped.history.plans[5].candidates) == len(explanation.arms)


def test_what_a_new_candidate_risks_is_told_in_the_round_of_its_birth(helped):
    asked = 0
    for plan in helped.history.plans.values():
        transfer = plan.trace.transfer
        new = {c for c in plan.candidates if helped.history.candidates[c].round == plan.round}
        if transfer is None or not transfer.used or not new:
            continue
        for arm in helped.explain(plan.round).arms:
            screened = transfer.screened.get(arm.candidate)
            risk = [reason for reason in arm.why if "its risk required" in reason]
            assert bool(risk) == (screened is not None)
            if screened is not None:
                assert arm.candidate in new
                assert screened.prob >= screened.needed >= 0.25
                assert f"{screened.prob:.2f} when it was new" in risk[0]
                asked += 1
        suggested = {c for c in new if helped.history.candidates[c].origin != "leader"}
        assert suggested <= set(transfer.screened)
    assert asked


def test_without_sources_nothing_is_told(tmp_path):
    tuner = make(tmp_path, given=[])
    play(tuner, 2)
    assert tuner.explain().transfer is None
    assert not any("alternative" in r for r in tuner.explain().remarks)


def test_a_refusal_has_its_words():
    stored = {"used": False, "metrics": [], "reason": "bets lost", "wealth": 0.5, "needed": 2.996}
    made = choice(TransferTrace.read(stored))
    assert made.taken == "a cold start"
    assert made.why == "bets lost"
    assert "log e-value 0.50, needed 3.00" in made.alternative
    held = stored | {"held_out": {"gain": {"transferred": -5.0, "cold": -1.0}}}
    assert "evidence (nats) by: gain -4.00" in choice(TransferTrace.read(held)).alternative


facts = st.fixed_dictionaries(
    {"used": st.booleans(), "metrics": st.lists(st.text(min_size=1), max_size=2),
     "reason": st.text()},
    optional={
        "wealth": st.floats(-1e3, 1e3), "needed": st.just(2.9957),
        "held_out": st.dictionaries(
            st.text(), st.fixed_dictionaries(
                {"transferred": st.floats(-1e6, 1e6), "cold": st.floats(-1e6, 1e6)}), max_size=2),
        "sources": st.dictionaries(
            st.text(), st.fixed_dictionaries({"weight": st.lists(st.floats(0, 1), max_size=2)}),
            max_size=2),
    },
)  # fmt: skip


@given(facts)
def test_any_facts_have_a_choice_and_its_alternative(stored):
    if "wealth" in stored:
        stored["needed"] = 2.9957
    made = choice(TransferTrace.read(stored))
    assert made.taken != made.alternative
    assert ("cold start" in made.taken) != stored["used"]
    text = sentences(TransferTrace.read(stored), ["gain", "guard"])
    assert len(text) == 2 + len(stored.get("sources", {}))
