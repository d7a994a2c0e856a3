"""A loop and the switches: what it serves is never older than what the journal says."""

import pytest
from support.live_loop import Platform, loop_of, make

import hyperzero_torch as hz
from hyperzero_torch.live.clock import SimulatedClock

pytestmark = pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")


def served(platform):
    """The arms that the platform serves; the control alone where it was withdrawn."""
    last = platform.applied[-1]
    return {0} if last is None else set(last.candidate_ids)


def other_process(tuner):
    """The same study, as a command opens it."""
    return hz.Tuner(tuner.problem, None, tuner.journal, tuner.study.name)


def test_a_switch_thrown_while_the_loop_serves_is_not_undone():
    """The command wrote its flags before the loop wrote the plan that it had read earlier."""
    tuner, platform = make(), Platform()
    platform.trouble["apply"].append(lambda: other_process(tuner).study.withdraw("an incident"))
    done = loop_of(tuner, platform).step(0)
    assert served(platform) == {0}
    assert not done.applied
    assert any("withdrawn" in note for note in done.notes)


def test_a_candidate_stopped_while_the_loop_plans_is_not_served():
    tuner, platform = make(), Platform()
    platform.trouble["apply"].append(lambda: other_process(tuner).study.stop(2, "it crashes"))
    loop_of(tuner, platform).step(0)
    assert served(platform) == {0}
    loop_of(tuner, platform).step(1)
    assert served(platform) == {0, 1, 3, 4}


def test_a_loop_that_is_started_again_within_the_round_keeps_it_withdrawn():
    tuner, platform = make(), Platform()
    clock = SimulatedClock(10_000.0)
    list(loop_of(tuner, platform, clock).run(2))
    assert len(served(platform)) > 1
    tuner.study.withdraw("an incident")
    list(loop_of(tuner, platform, clock).run(1))
    assert served(platform) == {0}


def test_withdrawn_hours_have_a_plan_with_the_control_alone_and_its_readings():
    tuner, platform = make(), Platform()
    loop = loop_of(tuner, platform)
    loop.step(0)
    tuner.study.withdraw("an incident")
    for round_ in range(1, 5):
        assert loop.step(round_).applied
        assert served(platform) == {0}
    assert {c for r in (1, 2, 3) for c in tuner.history.tables[r].candidates.tolist()} == {0}
    assert tuner.history.tables[3].reported.all()
    tuner.study.resume("over")
    for round_ in range(5, 8):
        loop.step(round_)
        assert len(served(platform)) > 1
    assert not tuner.history.status.excluded_rounds
    assert not [d for d in tuner.decisions if d.kind in ("missing", "withdrawn", "drift")]


def test_paused_hours_repeat_the_plan_and_the_loop_goes_on_after_them():
    tuner, platform = make(), Platform()
    loop = loop_of(tuner, platform)
    for round_ in range(3):
        loop.step(round_)
    before, num = tuner.history.plans[2], tuner.history.num_candidates
    tuner.study.pause("a release")
    for round_ in range(3, 6):
        loop.step(round_)
        plan = tuner.history.plans[round_]
        assert (plan.candidates, plan.shares) == (before.candidates, before.shares)
    assert tuner.history.num_candidates == num
    assert tuner.history.tables[4].reported.all()  # readings go on
    tuner.study.resume("over")
    for round_ in range(6, 10):
        loop.step(round_)
        assert tuner.history.plans[round_].trace.held is None
    assert any(tuner.history.plans[r].shares != before.shares for r in range(6, 10))
