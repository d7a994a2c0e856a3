"""Leases end by themselves, and only a later plan of its study replaces what is served."""

import dataclasses
import itertools
import json
import random
import threading
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.live_loop import HOUR, Platform, loop_of, make

import hyperzero_torch as hz
from hyperzero_torch.live import (
    FlagdUpdater,
    SimulatedClock,
    TableUpdater,
    Terms,
    ThetaClient,
    assign,
    read_table,
)
from hyperzero_torch.live.clock import Schedule
from hyperzero_torch.live.lease import terms_of
from hyperzero_torch.live.retry import RetryPolicy
from hyperzero_torch.testing.platforms import example_plan

pytestmark = pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")

SHARES = (0.2, 0.5, 0.3)
BASE = {"w_click": 0.2, "depth": 3, "mode": "a", "fresh": False}
USERS = [f"user {i}" for i in range(60)]
NOON = 1_900_000_000.0
OURS = Terms("feed", "e1", NOON, NOON + 7200.0)
KINDS = [
    pytest.param(lambda folder: FlagdUpdater(folder / "plan.json"), id="flagd"),
    pytest.param(lambda folder: TableUpdater(folder / "plan.json"), id="table"),
]


def core_of(path, now):
    """flagd's own evaluation of a definition at a time, as in its server and its provider."""
    core = pytest.importorskip("openfeature.contrib.tools.flagd.core")
    evaluated = core.FlagdCore()
    evaluated.set_flags(path.read_text())
    context = pytest.importorskip("openfeature.evaluation_context").EvaluationContext
    with patch("time.time", return_value=now):
        return [evaluated.resolve_object_value("value-model", {}, context(user)) for user in USERS]


def served(writer, now):
    """Candidate and round of each user, as the platform serves them at a time."""
    if isinstance(writer, TableUpdater):
        table = read_table(writer.path)
        got = [assign(table, user, lambda: now) for user in USERS]
        return {(a.candidate, a.round) for a in got}
    return {
        (r.value["candidate"], r.value["round"] if r.reason == "TARGETING_MATCH" else None)
        for r in core_of(writer.path, now)
    }


# Leases


@pytest.mark.parametrize("make_updater", KINDS)
def test_when_the_lease_has_run_out_everybody_gets_the_control(tmp_path, make_updater):
    writer = make_updater(tmp_path).on_behalf_of(OURS)
    writer.apply(example_plan(7, SHARES))
    before = writer.path.read_bytes()
    within = {(c, 7) for c in range(3)}
    for now in (NOON, NOON + 1.0, NOON + 7199.0):
        assert served(writer, now) == within
    for now in (NOON + 7200.0, NOON + 7201.0, NOON + 30 * 86400.0, NOON - 1.0, 0.0):
        assert served(writer, now) == {(0, None)}
    assert writer.path.read_bytes() == before  # nobody wrote anything


def test_a_part_of_the_users_and_a_lease(tmp_path):
    writer = FlagdUpdater(tmp_path / "plan.json").on_behalf_of(OURS)
    writer.apply(example_plan(7, SHARES, experiment_share=0.5))
    inside = [r for r in core_of(writer.path, NOON + 1) if r.reason == "TARGETING_MATCH"]
    assert 10 < len(inside) < 50
    assert {r.reason for r in core_of(writer.path, NOON + 7200)} == {"DEFAULT"}


@given(
    begin=st.floats(0, 4e9),
    length=st.floats(1, 1e6),
    place=st.floats(-1.0, 2.0),
)
@settings(max_examples=40, deadline=None)
def test_both_platforms_end_a_lease_at_the_same_time(tmp_path_factory, begin, length, place):
    """flagd counts whole seconds; within one both may differ."""
    now = max(0.0, begin + place * length)
    if min(abs(now - begin), abs(now - begin - length)) < 1.5:
        return
    folder = tmp_path_factory.mktemp("lease")
    terms = Terms("feed", "e1", begin, begin + length)
    results = []
    for kind in (FlagdUpdater, TableUpdater):
        writer = kind(folder / f"{kind.__name__}.json").on_behalf_of(terms)
        writer.apply(example_plan(3, (0.0, 1.0)))
        results.append(served(writer, now))
    is_valid = begin <= now < begin + length
    assert results == [{(1, 3)} if is_valid else {(0, None)}] * 2


def test_the_client_in_the_process_has_its_own_clock(tmp_path):
    """Also behind a provider that knows no time: it evaluates, the client still says no."""
    pytest.importorskip("openfeature.contrib.provider.flagd")
    path, now = tmp_path / "flags.json", [0.0]
    import time

    terms = Terms("feed", "e1", time.time() - 10, time.time() + 3600)
    FlagdUpdater(path).on_behalf_of(terms).apply(example_plan(7, (0.0, 1.0)))
    with ThetaClient.open(path, BASE, poll_seconds=0.05, now=lambda: now[0]) as client:
        now[0] = time.time()
        got = client.assign("u")
        assert (got.candidate, got.round, got.reason) == (1, 7, "planned")
        assert (got.study, got.epoch) == ("feed", "e1")
        assert client.served_round() == 7
        for outside in (terms.valid_until, terms.valid_until + 1e6, terms.valid_from - 1, -1.0):
            now[0] = outside
            got = client.assign("u")
            assert (got.candidate, got.round, got.parameters) == (0, None, BASE)
            assert "lease" in got.reason
            assert client.served_round() is None


def test_what_a_plan_in_the_flags_says(tmp_path):
    for kind, where in (
        (FlagdUpdater, lambda d: d["flags"]["value-model"]["metadata"]),
        (TableUpdater, lambda d: d["stamp"]),
    ):
        writer = kind(tmp_path / f"{kind.__name__}.json").on_behalf_of(OURS)
        writer.apply(example_plan(7, SHARES))
        stamp = where(json.loads(writer.path.read_text()))
        assert stamp == writer.owner()
        assert {k: v for k, v in stamp.items() if k != "plan"} == {
            "schema": 1, "study": "feed", "epoch": "e1", "round": 7, "salt": "value-model",
            "valid_from": NOON, "valid_until": NOON + 7200.0,
        }  # fmt: skip
        inode = writer.path.stat().st_ino
        writer.apply(example_plan(7, SHARES))
        assert writer.path.stat().st_ino == inode
        writer.withdraw()
        stamp = writer.owner()
        assert (stamp["study"], stamp["round"]) == ("feed", 7)
        assert stamp["valid_until"] == NOON + 7200.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"valid_from": 2.0, "valid_until": 1.0},
        {"valid_from": 1.0, "valid_until": 1.0},
        {"valid_from": None, "valid_until": 1.0},
        {"valid_from": 0.0, "valid_until": float("inf")},
        {"valid_from": float("nan"), "valid_until": 1.0},
        {"study": ""},
        {"epoch": None},
    ],
)
def test_terms_that_cannot_be(wrong):
    with pytest.raises(hz.ConfigError):
        dataclasses.replace(OURS, **wrong)


def test_shares_sum_to_one_within_1e_12(tmp_path):
    for kind in (FlagdUpdater, TableUpdater):
        writer = kind(tmp_path / f"{kind.__name__}.json")
        writer.apply(example_plan(1, (0.5, 0.5 + 9e-13)))
        for wrong in (1e-9, -1e-9, 2e-12, -2e-12):
            with pytest.raises(hz.InputError, match="sum to 1"):
                writer.apply(example_plan(1, (0.5, 0.5 + wrong)))


# Fences


@pytest.mark.parametrize("make_updater", KINDS)
def test_an_older_plan_never_replaces_a_newer_one(tmp_path, make_updater):
    writer = make_updater(tmp_path).on_behalf_of(OURS)
    writer.apply(example_plan(7, SHARES))
    before = writer.path.read_bytes()
    for number in (6, 0):
        with pytest.raises(hz.FencedError, match="older and was not written"):
            writer.apply(example_plan(number, SHARES))
    with pytest.raises(hz.FencedError, match="another plan of round 7"):
        writer.apply(example_plan(7, (0.3, 0.5, 0.2)))
    with pytest.raises(hz.FencedError, match="names no study"):
        make_updater(tmp_path).apply(example_plan(8, SHARES))
    assert writer.path.read_bytes() == before
    writer.withdraw()
    with pytest.raises(hz.FencedError, match="older"):  # withdrawn, and still the latest
        writer.apply(example_plan(6, SHARES))
    writer.apply(example_plan(7, SHARES))
    assert writer.path.read_bytes() == before
    writer.apply(example_plan(9, SHARES))


@pytest.mark.parametrize("make_updater", KINDS)
def test_another_study_and_another_journal_are_refused(tmp_path, make_updater):
    writer = make_updater(tmp_path)
    writer.on_behalf_of(OURS).apply(example_plan(7, SHARES))
    before = writer.path.read_bytes()
    other, anew = Terms("shorts", "e1"), Terms("feed", "e2")
    for terms, match in ((other, "cannot use it too"), (anew, "begun anew")):
        with pytest.raises(hz.FencedError, match=match):
            writer.on_behalf_of(terms).apply(example_plan(99, SHARES))
    with pytest.raises(hz.FencedError, match="cannot use it too"):
        writer.on_behalf_of(other).withdraw()
    assert writer.path.read_bytes() == before
    # The study itself may be withdrawn from any journal of it: the control is never wrong.
    writer.on_behalf_of(anew).withdraw()
    assert served(writer, NOON + 1) == {(0, None)}
    with pytest.raises(hz.FencedError):
        writer.on_behalf_of(anew).apply(example_plan(99, SHARES))


@pytest.mark.parametrize("make_updater", KINDS)
def test_a_successor_takes_over_and_its_predecessor_does_not_come_back(tmp_path, make_updater):
    writer = make_updater(tmp_path)
    writer.on_behalf_of(OURS).apply(example_plan(7, SHARES))
    successor = Terms("feed.2", "e9", NOON, NOON + 1, follows=(("feed", "e1"),))
    writer.on_behalf_of(successor).apply(example_plan(8, SHARES))
    with pytest.raises(hz.FencedError):
        writer.on_behalf_of(OURS).apply(example_plan(9, SHARES))


@pytest.mark.parametrize("make_updater", KINDS)
def test_taken_over_on_purpose_the_control_is_served_until_the_next_plan(tmp_path, make_updater):
    writer = make_updater(tmp_path)
    writer.on_behalf_of(OURS).apply(example_plan(7, SHARES))
    anew = Terms("feed", "e2", NOON, NOON + 7200)
    writer.on_behalf_of(anew).take_over()
    assert served(writer, NOON + 1) == {(0, None)}
    with pytest.raises(hz.FencedError):
        writer.on_behalf_of(OURS).apply(example_plan(8, SHARES))
    writer.on_behalf_of(anew).apply(example_plan(0, SHARES))
    assert {r for _, r in served(writer, NOON + 1)} == {0}
    with pytest.raises(hz.ConfigError, match="on_behalf_of"):
        writer.take_over()


@pytest.mark.parametrize("make_updater", KINDS)
def test_plans_of_an_earlier_version_have_a_round_and_are_taken_up(tmp_path, make_updater):
    writer = make_updater(tmp_path)
    writer.apply(example_plan(7, SHARES))  # without a stamp, as earlier versions wrote them
    with pytest.raises(hz.FencedError, match="older"):
        writer.on_behalf_of(OURS).apply(example_plan(6, SHARES))
    writer.on_behalf_of(OURS).apply(example_plan(7, SHARES))
    assert writer.owner()["study"] == "feed"


@pytest.mark.parametrize("kind", [FlagdUpdater, TableUpdater])
def test_whatever_the_order_of_the_writers_the_latest_plan_is_served(tmp_path, kind):
    """All orders of four writes of two writers, one of which was paused with an old plan."""
    for number, order in enumerate(itertools.permutations([3, 4, 5, 6])):
        writer = kind(tmp_path / f"{number}.json").on_behalf_of(OURS)
        highest = -1
        for round_ in order:
            if round_ < highest:
                with pytest.raises(hz.FencedError):
                    writer.apply(example_plan(round_, SHARES))
            else:
                writer.apply(example_plan(round_, SHARES))
            highest = max(highest, round_)
            assert writer.owner()["round"] == highest


def test_a_stamp_that_cannot_be_read_is_refused(tmp_path):
    writer = TableUpdater(tmp_path / "table.json").on_behalf_of(OURS)
    writer.apply(example_plan(7, SHARES))
    table = json.loads(writer.path.read_text())
    table["stamp"]["round"] = "seven"
    writer.path.write_text(json.dumps(table))
    with pytest.raises(hz.ConfigError, match="cannot be read"):
        writer.apply(example_plan(8, SHARES))


# The loop


def stamped(path):
    return FlagdUpdater(path).owner()


def test_a_loop_stamps_its_plans_and_renews_the_lease_each_round(tmp_path):
    tuner, platform, path = make(), Platform(), tmp_path / "flags.json"
    clock = SimulatedClock(10 * HOUR)
    loop = loop_of(tuner, platform, clock, lease_rounds=3.0)
    loop.updater = FlagdUpdater(path)
    for number, done in enumerate(loop.run(3)):
        assert done.applied
        stamp = stamped(path)
        assert (stamp["study"], stamp["round"]) == ("default", number)
        assert stamp["epoch"] == tuner.study.epoch().epoch
        assert stamp["valid_from"] == (10 + number) * HOUR
        assert stamp["valid_until"] == (13 + number) * HOUR
    assert len([d for d in tuner.decisions if d.kind == "epoch"]) == 1
    for wrong in (0.5, 0, float("inf"), float("nan")):
        with pytest.raises(hz.ConfigError, match="lease_rounds"):
            loop_of(tuner, platform, clock, lease_rounds=wrong)


def test_a_journal_begun_anew_serves_nothing_until_a_person_says_so(tmp_path):
    path, clock = tmp_path / "flags.json", SimulatedClock(10 * HOUR)
    for tuner in (make(), make()):  # the second one has lost the journal of the first
        loop = loop_of(tuner, Platform(), clock)
        loop.updater = FlagdUpdater(path)
        done = list(loop.run(2))
        if tuner.history.num_candidates and stamped(path)["epoch"] == tuner.study.epoch().epoch:
            first = stamped(path)
            assert all(d.applied for d in done)
    assert not any(d.applied for d in done)
    assert any("begun anew" in note for d in done for note in d.notes)
    assert stamped(path) == first
    epoch = tuner.study.begin_epoch("the disk was lost", by="anna")
    assert epoch.by == "anna"
    terms = Terms(tuner.study.name, epoch.epoch)
    FlagdUpdater(path).on_behalf_of(terms).take_over()
    assert [d.applied for d in loop.run(1)] == [True]
    assert stamped(path)["epoch"] == epoch.epoch
    with pytest.raises(hz.RoundError, match="reason"):
        tuner.study.begin_epoch(" ")


def test_an_epoch_stays_when_the_study_is_opened_again(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    tuner = make(url)
    epoch = tuner.study.epoch()
    assert tuner.study.epoch() == epoch
    again = hz.Tuner.resume(url, "default", problem=tuner.problem)
    assert again.study.epoch() == epoch
    other = make(f"sqlite:///{tmp_path / 'other.db'}")
    assert other.study.epoch().epoch != epoch.epoch
    with pytest.raises(hz.ConfigError):
        tuner.study.note("epoch", "a remark")


@pytest.mark.parametrize("seed", range(3))
def test_paused_writers_in_any_order_never_go_back(tmp_path, seed):
    """Plans that two loops on one study made, applied late and in any order by both."""
    draw = random.Random(seed)
    path = tmp_path / "flags.json"
    plans = [example_plan(r, SHARES) for r in range(12) for _ in range(2)]
    draw.shuffle(plans)
    highest = -1
    for plan in plans:
        try:
            FlagdUpdater(path).on_behalf_of(OURS).apply(plan)
        except hz.FencedError:
            assert plan.round < highest
        else:
            assert plan.round >= highest
            highest = plan.round
        assert stamped(path)["round"] == highest


# What was withdrawn


@pytest.mark.parametrize("make_updater", KINDS)
def test_a_process_that_was_paused_does_not_undo_a_withdrawal(tmp_path, make_updater):
    """It was to serve round 7 when it had read 40 entries; a person withdrew with the 41st."""
    writer = make_updater(tmp_path)
    late = writer.on_behalf_of(dataclasses.replace(OURS, seen=40, last_round=7))
    late.apply(example_plan(6, SHARES))
    person = writer.on_behalf_of(dataclasses.replace(OURS, seen=41, last_round=7))
    person.withdraw()
    before = writer.path.read_bytes()
    for number in (6, 7):
        with pytest.raises(hz.FencedError, match="had read 40 of 41 entries"):
            late.apply(example_plan(number, SHARES))
    assert writer.path.read_bytes() == before
    assert served(writer, NOON + 1) == {(0, None)}
    late.withdraw()  # the control is what is served when in doubt, and the fence stays
    with pytest.raises(hz.FencedError, match="40 of 41"):
        late.apply(example_plan(7, SHARES))
    # Whoever has read the 41st entry may serve it: it was resumed by a later one.
    writer.on_behalf_of(dataclasses.replace(OURS, seen=42, last_round=7)).apply(
        example_plan(7, SHARES)
    )
    assert served(writer, NOON + 1) == {(c, 7) for c in range(3)}


@pytest.mark.parametrize("make_updater", KINDS)
def test_a_withdrawal_before_anything_is_served_holds(tmp_path, make_updater):
    """The study's first plan hangs; a person withdraws, and there is no flag yet."""
    writer = make_updater(tmp_path)
    first = writer.on_behalf_of(dataclasses.replace(OURS, seen=8, last_round=0))
    person = writer.on_behalf_of(dataclasses.replace(OURS, seen=9, last_round=0, control=BASE))
    person.withdraw()
    assert served(writer, NOON + 1) == {(0, None)}
    with pytest.raises(hz.FencedError, match="8 of 9 entries"):
        first.apply(example_plan(0, SHARES))
    person.withdraw()
    assert served(writer, NOON + 1) == {(0, None)}
    if isinstance(writer, TableUpdater):
        assigned = assign(read_table(writer.path), "a user", lambda: NOON + 1)
        assert assigned.parameters == BASE
    else:
        assert {str(r.value["parameters"]) for r in core_of(writer.path, NOON + 1)} == {str(BASE)}
    later = writer.on_behalf_of(dataclasses.replace(OURS, seen=10, last_round=0))
    later.apply(example_plan(0, SHARES))  # it was resumed
    assert served(writer, NOON + 1) == {(c, 0) for c in range(3)}


@pytest.mark.parametrize("make_updater", KINDS)
def test_a_withdrawal_holds_up_no_later_round_of_a_restored_journal(tmp_path, make_updater):
    """It has fewer entries than the lost one, and its rounds go on."""
    writer = make_updater(tmp_path)
    person = writer.on_behalf_of(dataclasses.replace(OURS, seen=90, last_round=7))
    person.apply(example_plan(7, SHARES))
    person.withdraw()
    restored = writer.on_behalf_of(dataclasses.replace(OURS, seen=30, last_round=8))
    restored.apply(example_plan(8, SHARES))
    assert served(writer, NOON + 1) == {(c, 8) for c in range(3)}
    assert "withdrawn_seen" not in writer.owner()


def test_a_call_of_the_loop_that_hangs_does_not_undo_a_switch(tmp_path):
    """The loop gives the call up; a person withdraws; then the call goes on."""
    tuner, gate, begun = make(), threading.Event(), threading.Event()
    table = TableUpdater(tmp_path / "table.json")

    class Hanging(Platform):
        def on_behalf_of(self, terms):
            other = Hanging()
            other.inner = table.on_behalf_of(terms)
            return other

        def owner(self):
            return table.owner()

        def withdraw(self):
            self.inner.withdraw()

        def apply(self, plan):
            if plan.round == 1:
                begun.set()
                gate.wait(60)
            try:
                self.inner.apply(plan)
            finally:
                if plan.round == 1:
                    ended.set()

    ended = threading.Event()
    retry = RetryPolicy(attempts=1, first_wait=0.0, timeout=0.5)
    rounds = loop_of(tuner, Hanging(), SimulatedClock(NOON), retry=retry).run()
    next(rounds)
    assert begun.wait(0) or not next(rounds).applied
    tuner.study.withdraw("an incident", "anna")
    Hanging().on_behalf_of(terms_of(Schedule(tuner, SimulatedClock(NOON), HOUR), 1, 2.0)).withdraw()
    gate.set()
    assert ended.wait(60)
    assert read_table(table.path)["round"] is None
