"""The live loop during a launch, after one that has ended, and beyond a promotion."""

import pytest
from support.live_loop import HOUR, Platform, loop_of, make

import hyperzero_torch as hz
from hyperzero_torch.live.clock import SimulatedClock


def test_a_loop_that_starts_again_does_not_serve_a_launch_that_has_ended(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    tuner, platform, clock = make(url), Platform(), SimulatedClock(1_000_000.0)
    list(loop_of(tuner, platform, clock).run(3))
    tuner.launch(2, unproven=True)
    clock.sleep(HOUR)
    list(loop_of(tuner, platform, clock).run(1))
    assert platform.applied[-1].candidate_ids == (0, 2)
    tuner.abort_launch("support tickets")
    (done,) = loop_of(tuner, platform, clock).run(1)  # the same hour, after a restart
    assert platform.applied[-1] is None  # withdrawn: the control for all
    assert any("a launch that has ended" in note for note in done.notes)


def test_a_loop_goes_on_with_the_next_study_by_itself(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    tuner, platform, clock = make(url), Platform(), SimulatedClock(1_000_000.0)
    loop = loop_of(tuner, platform, clock)
    rounds = loop.run(12)
    for _ in range(6):
        next(rounds)
    other = hz.Tuner.resume(url, problem=tuner.problem)  # somebody promotes meanwhile
    other.promote(2, unlaunched=True, who="ann")
    done = [next(rounds) for _ in range(4)]
    assert loop.tuner.study.name == "default.2"
    assert [r.round for r in done] == [6, 7, 8, 9]
    assert all(r.applied for r in done)
    assert platform.applied[-1].parameters[0] == other.history.candidates[2].parameters
    assert done[-1].rows > 0
    # A restart in the same hour, with the next study or with the first, repeats the last round.
    again = loop_of(loop.tuner, platform, clock)
    assert next(again.run(1)).round == 9
    first = loop_of(hz.Tuner.resume(url, problem=tuner.problem), platform, clock)
    clock.sleep(HOUR)
    assert next(first.run(1)).round == 10
    assert first.tuner.study.name == "default.2"


def test_a_promotion_and_a_restart_within_an_hour_leave_its_plan(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    tuner, platform, clock = make(url), Platform(), SimulatedClock(1_000_000.0)
    list(loop_of(tuner, platform, clock).run(5))
    following = tuner.promote(2, unlaunched=True)
    num = len(platform.applied)
    rounds = loop_of(following, platform, clock).run(1)
    assert next(rounds).round == 5  # it waited for the next hour
    assert len(platform.applied) == num + 1
    with pytest.raises(hz.RoundError, match="belongs to study"):
        following.ask(4)
