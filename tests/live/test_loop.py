"""The loop: late, partial, revised, failing, hanging, twice at once; plans are always served."""

import logging
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.live_loop import CONFIG, HOUR, Platform, loop_of, make, reading, stored

import hyperzero_torch as hz
from hyperzero_torch.live.clock import Schedule, SimulatedClock
from hyperzero_torch.live.loop import Collected, Loop
from hyperzero_torch.live.retry import Component, RetryPolicy

# All arms of these platforms have as many users, whatever their shares.
pytestmark = pytest.mark.filterwarnings("ignore:.*ample ratio mismatch")


def test_rounds_come_hourly_and_everything_is_told_once():
    platform, clock = Platform(late=2), SimulatedClock(5_000.0)
    tuner = make()
    done = list(loop_of(tuner, platform, clock).run(6))
    assert [d.round for d in done] == [p.round for p in platform.applied] == list(range(6))
    assert all(d.applied and not d.notes for d in done)
    assert {key[0] for key in stored(tuner)} == {0, 1, 2, 3}
    assert sum(d.rows for d in done) == len(stored(tuner))
    assert clock.now() < 5_000.0 + 6 * HOUR
    # The source sees the planned shares of earlier rounds.
    as_of, planned = platform.asked[-1]
    assert as_of == 5
    assert set(planned) == {0, 1, 2, 3, 4}
    assert all(sum(shares.values()) == pytest.approx(1) for shares in planned.values())


def test_the_loop_makes_the_plans_that_ask_and_tell_make():
    platform, by_loop, by_hand = Platform(late=2), make(), make()
    plans = [d.plan for d in loop_of(by_loop, platform).run(6)]
    for round_, plan in enumerate(plans):
        for earlier in plans[: max(0, round_ - 1)]:
            by_hand.tell(reading(earlier))
        assert by_hand.ask() == plan


@pytest.mark.parametrize("part", ["apply", "collect"])
def test_a_part_that_fails_a_few_times_is_tried_again(part):
    platform = Platform()
    platform.trouble[part] = [OSError("busy"), TimeoutError()]
    done = list(loop_of(make(), platform).run(3))
    assert all(d.applied and not d.notes for d in done)


def test_a_platform_that_fails_is_skipped_with_a_note_and_the_next_hour_comes():
    platform, tuner = Platform(), make()
    platform.trouble["apply"] = [None, *[OSError("disk full")] * 3]
    done = list(loop_of(tuner, platform).run(4))
    assert [d.applied for d in done] == [True, False, True, True]
    (note,) = [d for d in tuner.history.decisions if d.kind == "platform"]
    assert "serving round 1 failed 3 times" in note.reason
    assert "OSError: disk full" in note.reason
    assert [p.round for p in platform.applied] == [0, 2, 3]
    assert {key[0] for key in stored(tuner)} == {0, 2}  # nobody was served in round 1


def test_a_warehouse_that_fails_holds_up_no_plan():
    platform, tuner = Platform(), make()
    platform.trouble["collect"] = [RuntimeError("query killed")] * 6
    done = list(loop_of(tuner, platform).run(5))
    assert all(d.applied for d in done)
    assert [bool(d.notes) for d in done] == [False, True, True, False, False]
    assert {key[0] for key in stored(tuner)} == {0, 1, 2, 3}  # what was missed comes later
    kinds = [d.kind for d in tuner.history.decisions]
    assert kinds.count("warehouse") == 2


def test_a_part_that_hangs_is_not_waited_for_and_not_called_again_meanwhile():
    platform, release = Platform(), threading.Event()
    platform.trouble["apply"] = [lambda: release.wait(30)]
    quick = RetryPolicy(attempts=2, first_wait=0.0, timeout=0.2)
    steps = loop_of(make(), platform, retry=quick).run(3)
    first = next(steps)
    assert not first.applied
    assert "an earlier call is still at work" in first.notes[0]
    release.set()
    while len(platform.applied) < 1:  # the call that hung ends
        threading.Event().wait(0.01)
    assert next(steps).applied
    assert [p.round for p in platform.applied] == [0, 1]


def test_readings_that_are_refused_do_not_hold_up_the_others():
    platform, tuner = Platform(), make()
    honest = platform.collect

    def collect(as_of, planned, missing=()):
        collected = honest(as_of, planned)
        stranger = hz.Readings(99, [0, 1], [1.0, 1.0], [[1.0, 1.0]] * 2, [[1.0, 1.0]] * 2)
        readings = collected.readings
        return Collected(stranger if readings is None else hz.Readings.concat([readings, stranger]))

    platform.collect = collect
    done = list(loop_of(tuner, platform).run(4))
    assert all(d.applied for d in done)
    assert {key[0] for key in stored(tuner)} == {0, 1, 2}
    refused = [d for d in tuner.history.decisions if d.kind == "refused"]
    assert len(refused) == 1  # the same again is not written again
    assert "unknown round 99" in refused[0].reason


def test_a_round_with_a_mismatch_is_excluded_with_its_reason():
    platform, tuner = Platform(), make()
    honest = platform.collect

    def collect(as_of, planned, missing=()):
        collected = honest(as_of, planned)
        return Collected(collected.readings, {1: "p = 1e-9: candidate 2 has too many users"})

    platform.collect = collect
    list(loop_of(tuner, platform).run(4))
    assert tuner.history.status.excluded_rounds == {1: "p = 1e-9: candidate 2 has too many users"}
    assert [d.kind for d in tuner.history.decisions].count("set aside") == 1


def test_an_absurd_reading_is_in_the_log_and_the_notes_of_its_round(caplog):
    platform, tuner = Platform(), make()
    honest = platform.collect

    def collect(as_of, planned, missing=()):
        answer = honest(as_of, planned)
        if answer.readings is not None:
            answer.readings.mean[3] *= 100
        return answer

    platform.collect = collect
    rounds = []
    with pytest.warns(hz.TunerWarning, match="Set aside"):
        rounds += loop_of(tuner, platform).run(2)
    assert [cell.round for cell in tuner.history.quarantined] == [0]
    assert any("Set aside" in note for note in rounds[1].notes)
    assert "quarantined: Set aside" in caplog.text


def test_a_loop_that_was_killed_goes_on_where_it_was(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    platform, whole = Platform(), Platform()
    clock = SimulatedClock(10_000.0)
    first = loop_of(make(url), platform, clock).run(5)
    for _ in range(3):
        next(first)
    del first  # killed between rounds
    clock.sleep(HOUR)
    plans = [d.plan for d in loop_of(make(url), platform, clock).run(2)]
    uninterrupted = [d.plan for d in loop_of(make(), whole, SimulatedClock(10_000.0)).run(5)]
    assert plans == uninterrupted[3:]


def test_a_plan_that_was_made_but_not_applied_is_applied_after_the_restart():
    tuner, platform = make(), Platform()
    clock = SimulatedClock(10_000.0)
    list(loop_of(tuner, platform, clock).run(1))
    platform.applied.clear()  # as if killed just before
    (again,) = loop_of(tuner, platform, clock).run(1)
    assert again.round == 0
    assert [p.round for p in platform.applied] == [0]


def test_two_loops_on_one_study_make_one_plan_a_round(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    platform = Platform()
    loops = [loop_of(make(url), platform, SimulatedClock(10_000.0)).run(4) for _ in range(2)]
    for _ in range(4):
        one, two = (next(loop) for loop in loops)
        assert one.plan == two.plan
    tuner = hz.Tuner.resume(url, problem=make().problem)
    assert set(tuner.history.plans) == {0, 1, 2, 3}


def test_a_clock_that_steps_back_waits_for_the_round_that_was_planned():
    tuner, platform = make(), Platform()
    clock = SimulatedClock(100 * HOUR)
    steps = loop_of(tuner, platform, clock).run(4)
    assert [next(steps).round for _ in range(2)] == [0, 1]
    clock.time -= 3.2 * HOUR
    assert [next(steps).round for _ in range(2)] == [2, 3]
    notes = [d for d in tuner.history.decisions if "waiting for it" in d.reason]
    assert len(notes) == 1


def test_hours_that_were_slept_through_are_skipped():
    tuner, platform = make(), Platform()
    clock = SimulatedClock(100 * HOUR)
    steps = loop_of(tuner, platform, clock).run(2)
    next(steps)
    clock.time += 5 * HOUR
    assert next(steps).round == 6


def test_a_study_keeps_the_length_of_its_rounds():
    tuner, platform = make(), Platform()
    list(loop_of(tuner, platform).run(1))
    with pytest.raises(hz.ConfigError, match=r"rounds last 3600.0 s, got round_seconds=60"):
        next(Loop(tuner, platform, platform, SimulatedClock(), 60.0).run(1))


def test_a_study_that_was_planned_by_hand_goes_on_with_the_next_round():
    tuner, platform = make(), Platform()
    for _ in range(3):
        tuner.ask()
    assert [d.round for d in loop_of(tuner, platform).run(2)] == [3, 4]


def test_it_stops_when_told_to():
    platform, clock = Platform(), SimulatedClock()
    steps = loop_of(make(), platform, clock).run()
    next(steps)
    clock.stop.set()
    assert list(steps) == []


def test_a_journal_that_is_gone_for_a_while_costs_rounds_and_nothing_else(monkeypatch, caplog):
    tuner, platform = make(), Platform()
    honest, calls = tuner.journal.append, []

    def append(study, entries, after):
        calls.append(after)
        if 3 <= len(calls) < 12:
            raise hz.JournalError("the database went away")
        return honest(study, entries, after)

    monkeypatch.setattr(tuner.journal, "append", append)
    with caplog.at_level(logging.WARNING):
        done = list(loop_of(tuner, platform).run(6))
    assert done[-1].applied
    assert not all(d.applied for d in done)
    assert "the database went away" in caplog.text
    served = {p.round for p in platform.applied}
    assert {key[0] for key in stored(tuner)} == {r for r in served if r < 5}


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_whatever_arrives_in_whatever_order_the_last_revision_stands_once(data):
    """Late, partial, repeated, revised: the tables end as the newest revision of all that came."""
    tuner, platform = make(), Platform()
    newest = {}

    def collect(as_of, planned, missing=()):
        messages = {}
        for plan in platform.applied:
            if plan.round < as_of and data.draw(st.booleans()):
                revision = data.draw(st.integers(0, 2))
                some = slice(None) if data.draw(st.booleans()) else slice(0, 2)
                messages[plan.round] = (plan, revision, some)
        parts = []
        for plan, revision, some in messages.values():
            parts.append(reading(plan, revision, some))
            for i, c in enumerate(plan.candidate_ids[some]):
                for m in range(2):
                    held = newest.get((plan.round, c, m), (-1, None))
                    if revision > held[0]:
                        newest[plan.round, c, m] = (revision, parts[-1].mean[2 * i + m])
        return Collected(hz.Readings.concat(parts) if parts else None)

    platform.collect = collect
    list(loop_of(tuner, platform).run(5))
    held = stored(tuner)
    assert {k: (v[2], v[1]) for k, v in held.items()} == newest


@pytest.mark.parametrize(
    "how", [{"attempts": 0}, {"first_wait": -1.0}, {"timeout": 0.0}, {"timeout": float("nan")}]
)
def test_a_retry_policy_out_of_range_is_refused(how):
    with pytest.raises(hz.ConfigError, match="a retry policy needs"):
        RetryPolicy(**how)


def test_each_wait_is_longer_and_the_error_says_what_happened():
    clock, tries = SimulatedClock(), []

    def work():
        tries.append(clock.now())
        raise KeyError("x")

    message = r"asking failed 4 times in \d+ s; last error: KeyErr"
    with pytest.raises(hz.GivenUpError, match=message):
        Component(RetryPolicy(4, 1.0, 5.0), clock).call("asking", work)
    waits = np.diff(tries)
    assert np.all(waits >= [1, 4, 16])
    assert np.all(waits <= [1.25, 5, 20])


def test_a_round_without_a_length_is_refused():
    with pytest.raises(hz.ConfigError, match="round_seconds must be above 0"):
        Loop(make(), Platform(), Platform(), SimulatedClock(), 0.0)


def test_a_person_who_reinstates_an_excluded_round_is_believed():
    platform, tuner = Platform(), make()
    honest = platform.collect
    platform.collect = lambda *a: Collected(honest(*a).readings, {1: "p = 1e-9"})
    steps = loop_of(tuner, platform).run(5)
    for _ in range(3):
        next(steps)
    assert 1 in tuner.history.status.excluded_rounds
    tuner.study.reinstate([1], "the split was right, the log was not")
    list(steps)
    assert not tuner.history.status.excluded_rounds


def test_rounds_of_which_nothing_came_are_asked_for_however_old():
    platform, tuner, asked = Platform(), make(), []
    honest = platform.collect

    def collect(as_of, planned, missing=()):
        asked.append((as_of, list(missing)))
        return Collected() if as_of < 9 else honest(as_of, planned)

    platform.collect = collect
    list(loop_of(tuner, platform).run(11))
    assert asked[7] == (8, list(range(8)))
    assert asked[-1] == (10, [9])
    assert {key[0] for key in stored(tuner)} == set(range(10))


def test_a_loop_that_was_overtaken_serves_nothing_old():
    tuner, platform = make(), Platform()
    loop = loop_of(tuner, platform)
    tuner.ask(5)
    done = loop.step(3)
    assert done.plan is None
    assert not platform.applied
    assert "never planned" in done.notes[0]


def test_a_known_plan_that_names_stopped_candidates_is_not_served_again():
    tuner, platform = make(), Platform()
    clock = SimulatedClock(10_000.0)
    list(loop_of(tuner, platform, clock).run(3))
    tuner.study.roll_back(0, "why")
    born = tuner.history.status.stopped
    assert born & set(tuner.history.plans[2].candidates)
    platform.applied.clear()
    (again,) = loop_of(tuner, platform, clock).run(1)
    assert platform.applied == [None]  # the control alone
    assert not again.applied


def test_users_that_are_not_counted_are_logged(caplog):
    platform, tuner = Platform(), make()
    honest = platform.collect
    counts = {0: {"bots": 3, "in_two_arms": 0}, 1: {"bots": 0, "in_two_arms": 0}}
    platform.collect = lambda *a: Collected(honest(*a).readings, excluded_users=counts)
    with caplog.at_level(logging.INFO):
        list(loop_of(tuner, platform).run(2))
    records = [r for r in caplog.records if hasattr(r, "excluded")]
    assert [(r.round, r.excluded["bots"]) for r in records] == [(0, 3)]


@pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")
def test_readings_older_than_they_have_to_be_kept_are_compacted():
    changes = {"block_rounds": 24, "drift_alpha": None, "evidence": "own", "draws": "marginal"}
    config = hz.TunerConfig(**(CONFIG.model_dump() | changes))
    platform, tuner = Platform(late=2), make()
    tuner = hz.Tuner(tuner.problem, config)
    honest = platform.collect
    # A warehouse that says the last day again and again, and once what is long compacted.
    platform.collect = lambda as_of, planned, missing=(): (
        Collected(
            hz.Readings.concat(
                [
                    reading(p)
                    for p in platform.applied
                    if as_of - 24 <= p.round <= as_of - 2 or (p.round == 1 and as_of > 60)
                ]
            )
        )
        if as_of > 2
        else honest(as_of, planned)
    )
    list(loop_of(tuner, platform, keep=30).run(64))
    history = tuner.history
    assert [c.rounds for c in history.compacted] == [tuple(range(24))]
    assert min(history.tables) == 24
    assert [d.kind for d in history.decisions].count("refused") == 1
    refused = next(d for d in history.decisions if d.kind == "refused")
    assert "round 1 was compacted" in refused.reason
    assert tuner.bucket().num_rounds[history.plans[3].candidates[1]] > 0


def test_rounds_without_readings_are_warned_of(caplog):
    """Each hour in the log and in the round's notes, once in the journal, until readings come."""
    platform, tuner = Platform(late=100), make()
    loop = loop_of(tuner, platform)
    with caplog.at_level(logging.WARNING, "hyperzero_torch"):
        quiet = list(loop.run(9))
    assert [d.rounds_without_readings for d in quiet] == list(range(9))
    assert [len(d.notes) for d in quiet] == [0] * 6 + [1] * 3
    assert "no readings of the last 6 rounds have arrived (rounds 0 to 5)" in quiet[6].notes[0]
    assert sum("no readings of the last" in r.getMessage() for r in caplog.records) == 3
    noted = [d.reason for d in tuner.history.decisions if d.kind == "readings"]
    assert noted == list(quiet[6].notes)

    platform.late = 1
    *_, after = list(loop.run(2))
    assert after.rows
    assert after.rounds_without_readings == 0
    assert not after.notes


def test_readings_that_are_always_late_are_no_silence():
    done = list(loop_of(make(), Platform(late=8)).run(12))
    assert [bool(d.notes) for d in done] == [False] * 6 + [True] * 2 + [False] * 4
    assert done[-1].rounds_without_readings == 7


def test_a_loop_that_waits_for_a_far_round_goes_on_after_a_resync():
    """A round that was planned by mistake, or by a clock that was ahead."""
    tuner, platform, clock = make(), Platform(), SimulatedClock(10_000.0)
    loop = loop_of(tuner, platform, clock)
    assert [d.round for d in loop.run(2)] == [0, 1]
    tuner.ask(5000)
    waits = []

    class Waiting:
        """The same clock; after three hours of waiting a person runs the command."""

        now = staticmethod(clock.now)

        def sleep(self, seconds):
            waits.append(seconds)
            if len(waits) == 3:
                assert Schedule(tuner, clock, HOUR).resync("a typo") == 5019
            return clock.sleep(seconds) or len(waits) > 20

    done = list(loop_of(tuner, platform, Waiting()).run(2))
    # It was round 3 then; 5019 is the first later round of the same hour of the day. The loop wakes
    # up an hour later.
    assert 5019 % 24 == 3
    assert [d.round for d in done] == [5020, 5021]
    assert all(d.applied for d in done)
    (note,) = [d for d in tuner.history.decisions if "waiting for it" in d.reason]
    assert "'hyperzero resync'" in note.reason
    again = Schedule(tuner, clock, HOUR)
    again.start()
    assert again.current_round() == done[-1].round
    with pytest.raises(hz.RoundError, match="the loop goes on by itself"):
        again.resync("why")


def test_rounds_without_rows_or_without_their_control_are_said():
    platform, tuner = Platform(), make()

    def collect(as_of, planned, missing=()):
        due = [p for p in platform.applied if p.round < as_of and p.round != 1]
        parts = [reading(p, rows=slice(1, None) if p.round == 2 else slice(None)) for p in due]
        return Collected(hz.Readings.concat(parts) if parts else None)

    platform.collect = collect
    with pytest.warns(hz.TunerWarning, match="the control has none of 'gain', 'guard'"):
        done = list(loop_of(tuner, platform).run(9))
    assert [bool(d.notes) for d in done] == [False] * 6 + [True, True, False]
    control, rows = (
        [d for d in tuner.history.decisions if d.kind == kind] for kind in ("control", "hours")
    )
    assert [d.details["rounds"] for d in control] == [[2]]
    assert [d.details["rounds"] for d in rows] == [[1]]


def test_reasons_of_the_source_reach_log_and_journal_once_they_are_final(caplog):
    """The metric of one hour may be late; in its last report it is missing."""
    platform, tuner = Platform(), make()
    honest = platform.collect

    def collect(as_of, planned, missing=()):
        reason = "metric 'guard': the control's mean is 0 or undefined"
        omitted = {r: (reason, f"arms [{r}]: one user, a variance needs two") for r in planned}
        readings = honest(as_of, planned).readings
        return Collected(readings, omitted=omitted, final_rounds=[as_of - 3])

    platform.collect = collect
    done = list(loop_of(tuner, platform).run(7))
    assert [len(d.notes) for d in done] == [0, 0, 0, 2, 0, 0, 0]
    remarks = [d.reason for d in tuner.history.decisions if d.kind == "events"]
    assert remarks == [
        "no reading in round 0: metric 'guard': the control's mean is 0 or undefined",
        "no reading in round 0: arms [0]: one user, a variance needs two",
    ]
