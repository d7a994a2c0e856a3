"""A promoted candidate becomes the base of a next study that goes on with the evidence so far."""

import warnings

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.live.clock import CLOCK
from hyperzero_torch.report import write_report
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.study.journal.launch_trace import Carried
from hyperzero_torch.study.promotion import next_name, promoted_problem, successor_entries

F64 = torch.float64
CONFIG = hz.TunerConfig(
    num_draws=100, num_samples=128, num_starts=0, initial_candidates=24, verification_share=0.0
)


def drive(tuner, world, rounds):
    """Rounds whose readings arrive at once."""
    plans = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hz.TunerWarning)
        for _ in range(rounds):
            plans.append(tuner.ask())
            tuner.tell([delivery.readings for delivery in world.serve(plans[-1])])
    return plans


def launched(seed, journal=None, rounds=12):
    world = GuardrailWorld(seed=seed, traffic=20.0, delay=0)
    tuner = hz.Tuner(world.problem, CONFIG, journal, "feed", seed)
    drive(tuner, world, rounds)
    tuner.launch(unproven=True, keep_holdback=2, stages=(0.1, 0.5, 1.0))
    for _ in range(40):
        drive(tuner, world, 1)
        if tuner.history.status.launch.outcome == "complete":
            return world, tuner
    raise AssertionError("the launch did not complete")


@pytest.fixture(scope="module")
def study():
    return launched(3)


@pytest.fixture
def fresh(study):
    """The launched study, in a journal of its own."""
    world, tuner = study
    copy = hz.Tuner(world.problem, CONFIG, None, "feed", 3)
    copy.load_state_dict(tuner.state_dict())
    return world, copy


def truth(world, theta, base):
    """Deltas against another base, from the world's."""
    delta, of_base = world.true_delta(theta), world.true_delta(base.unsqueeze(0))
    return (1 + delta) / (1 + of_base) - 1


def test_the_next_study_agrees_with_the_truth_and_plans_from_what_is_carried():
    """Over several worlds: own evidence and posterior cover the truth against the new base."""
    own, fitted, together = [], [], []
    for seed in (3, 5, 7):
        world, tuner = launched(seed)
        promoted = tuner.launch_status().candidate
        base = tuner.bucket().theta[promoted]
        following = tuner.promote(who="ann", reason="two good days")
        bucket = following.bucket()
        true = truth(world, bucket.theta, base)
        z = (bucket.mean - true) / bucket.var.sqrt()
        own.append(z[z.isfinite()])
        mean, var = following.posterior(bucket.theta[1:])
        fitted.append(((mean - true[1:]) / var.sqrt()).flatten())
        rows = bucket.tested.nonzero().flatten()
        shared = bucket.shared(rows)
        assert bool((torch.linalg.eigvalsh(shared) > -1e-12).all())
        together.append(float((shared.diagonal(dim1=-2, dim2=-1).T / bucket.var[rows]).mean()))
        last, num = tuner.history.last_round, tuner.history.num_candidates
        plan = following.ask()
        assert plan.round == last + 1
        assert plan.parameters[0] == tuner.history.candidates[promoted].parameters
        trace = following.history.last_plan.trace
        assert trace.why_not is None  # a posterior was used
        assert trace.num_tested == len(rows)
        assert following.history.num_candidates < num + 10  # no initial design again
    for z in (torch.cat(own), torch.cat(fitted)):
        assert 0.8 < float(z.std()) < 1.3
        assert float((z.abs() > 1.96).double().mean()) < 0.12
    assert 0 < min(together) < max(together) < 1


def test_it_goes_on_and_finds_no_false_drift(fresh):
    world, tuner = fresh
    following = tuner.promote()
    base = following.problem.base_theta
    drive(following, world, 10)
    assert not [d for d in following.decisions if d.kind == "drift"]
    bucket = following.bucket()
    z = (bucket.mean - truth(world, bucket.theta, base)) / bucket.var.sqrt()
    z = z[z.isfinite()]
    assert 0.75 < float(z.std()) < 1.3


def test_candidates_keep_their_ids_but_the_two_bases(fresh):
    _, tuner = fresh
    before = tuner.history
    promoted = tuner.launch_status().candidate
    stopped = set(tuner.stopped)
    following = tuner.promote()
    after = following.history
    assert after.num_candidates == before.num_candidates
    for number in range(before.num_candidates):
        old = {0: promoted, promoted: 0}.get(number, number)
        assert after.candidates[number].theta == before.candidates[old].theta
        assert after.times_served[number] == before.times_served[old]
    assert after.candidates[promoted].origin == "earlier base"
    assert set(following.stopped) == stopped
    assert following.config == tuner.config
    assert following.seed == tuner.seed


def test_the_base_before_is_the_inverse_of_the_promoted_candidate(fresh):
    _, tuner = fresh
    promoted = tuner.launch_status().candidate
    bucket = tuner.bucket()
    mean, var = bucket.mean[promoted], bucket.var[promoted]
    carried = tuner.promote().bucket()
    expected = (1 / (1 + mean) - 1) - var / (1 + mean) ** 3
    torch.testing.assert_close(carried.mean[promoted], expected)
    torch.testing.assert_close(carried.var[promoted], var / (1 + mean) ** 4)
    levels = bucket.levels_by_metric * (1 + mean)
    torch.testing.assert_close(carried.levels_by_metric, levels)


def test_levels_that_the_platform_knows_change_with_the_base(study):
    world, tuner = study
    given = world.problem.with_base_levels(torch.tensor([4.0, -2.0], dtype=F64))
    copy = hz.Tuner(given, CONFIG, None, "feed", 3)
    state = tuner.state_dict()
    header = copy.state_dict()["problem"]
    copy.load_state_dict(state | {"problem": header})
    promoted = copy.launch_status().candidate
    mean = copy.bucket().mean[promoted]
    following = copy.promote()
    expected = [4.0 * (1 + mean[0]), -2.0 * (1 - mean[1])]
    assert following.problem.base_levels.tolist() == pytest.approx([float(x) for x in expected])


def test_the_old_study_says_where_it_goes_on_and_takes_nothing(fresh):
    _, tuner = fresh
    plan = tuner.history.last_round
    following = tuner.promote(name="autumn")
    assert following.study.name == "autumn"
    num = tuner.history.num_entries
    for call in (
        tuner.ask,
        tuner.promote,
        tuner.launch,
        lambda: tuner.tell(hz.Readings(plan, [0], [5.0], [[1.0, 1.0]], [[1.0, 1.0]])),
    ):
        with pytest.raises(hz.LaunchError, match="goes on as 'autumn'"):
            call()
    assert tuner.ask(plan).round == plan  # a plan that was made stays
    assert tuner.study.sync().num_entries == num
    with pytest.raises(hz.RoundError, match="belongs to study 'feed'"):
        following.ask(plan)
    with pytest.raises(hz.LaunchError, match="no candidate of this study was promoted"):
        following.successor()


def test_one_clear_error_each_and_nothing_changed(study):
    world, _ = study
    early = hz.Tuner(world.problem, CONFIG, None, "feed", 3)
    drive(early, world, 4)

    def refused(match, *arguments, **how):
        num = early.study.sync().num_entries
        with pytest.raises(hz.LaunchError, match=match):
            early.promote(*arguments, **how)
        assert early.study.sync().num_entries == num
        assert early.journal.studies() == ["feed"]

    refused("no launch is complete")
    refused("no launch of candidate 2 is complete.*--unlaunched", 2)
    refused("candidates are 1 to", 900, unlaunched=True)
    refused("holds a study 'feed' already", 2, unlaunched=True, name="feed")
    early.launch(2, unproven=True)
    drive(early, world, 1)
    refused("in stage 1 of 5 of its launch", 2, unlaunched=True)
    early.abort_launch("no")
    served = early.history.times_served
    new = [c for c in range(1, len(served)) if not served[c]]
    if new:
        refused("no evidence on", new[0], unlaunched=True)
    assert early.promote(2, unlaunched=True).study.name == "feed.2"


def test_whoever_is_killed_between_the_two_writes_finds_the_next_study(study, tmp_path):
    world, tuner = study
    url = f"sqlite:///{tmp_path}/study.db"
    copies = []
    for name in (url, None):
        copy = hz.Tuner(world.problem, CONFIG, name, "feed", 3)
        copy.load_state_dict(tuner.state_dict())
        copies.append(copy)
    killed, whole = copies
    following = whole.promote()
    # Only the decision was written.
    killed.study.append(lambda _: ([whole.study.sync().decisions[-1]], None))
    assert killed.journal.studies() == ["feed"]
    found_again = hz.Tuner.resume(url, "feed", problem=world.problem).successor()
    assert found_again.journal.studies() == ["feed", "feed.2"]
    ours = found_again.journal.read("feed.2")
    theirs = following.journal.read("feed.2")
    assert [e for e in ours if not isinstance(getattr(e, "trace", None), Carried)] == [
        e for e in theirs if not isinstance(getattr(e, "trace", None), Carried)
    ]
    assert found_again.ask() == following.ask()


def test_a_third_study_follows_the_second_and_the_clock_goes_on(fresh):
    world, tuner = fresh
    tuner.study.note(CLOCK, "round 0 began", {"origin": 0.0, "round_seconds": 3600.0})
    second = tuner.promote()
    assert [d.kind for d in second.decisions if d.kind == CLOCK] == [CLOCK]
    drive(second, world, 3)
    best = second.history.last_plan.candidates[1]
    third = second.promote(best, unlaunched=True)
    assert third.study.name == "feed.3"
    assert third.history.next_round == second.history.last_round + 1
    assert third.history.first_round == 0
    assert len(third.ask()) > 1
    assert [next_name(n) for n in ("feed", "feed.2", "a.b", "a.9")] == [
        "feed.2", "feed.3", "a.b.2", "a.10",
    ]  # fmt: skip


def test_a_next_study_saves_loads_compacts_and_reports(fresh, tmp_path):
    world, tuner = fresh
    following = tuner.promote()
    drive(following, world, 3)
    copy = hz.Tuner(following.problem, CONFIG, None, "feed.2", 3)
    copy.load_state_dict(following.state_dict())
    assert torch.equal(copy.bucket().mean.nan_to_num(), following.bucket().mean.nan_to_num())
    assert copy.ask() == following.ask()
    following.study.compact(0)
    assert following.explain().arms
    for each, word in ((following, "evidence carried"), (tuner, "complete: candidate")):
        write_report(each, tmp_path / "report.html")
        assert word in (tmp_path / "report.html").read_text()


def test_a_damaged_evidence_is_refused(fresh):
    world, tuner = fresh
    tuner.promote()
    entries = successor_entries(tuner.history, "feed")
    problem = promoted_problem(world.problem, tuner.history)
    journal = hz.MemoryJournal()
    at = next(i for i, e in enumerate(entries) if isinstance(getattr(e, "trace", None), Carried))
    entries[at].details["evidence"]["mean"]["data"] = "AAAA"
    header = tuner.journal.header("feed")
    damaged = type(header)("feed.2", header.seed, problem.spec())
    journal.create(damaged, entries)
    with pytest.raises(hz.JournalCorruptError, match="carried evidence is damaged"):
        hz.Tuner.resume(journal, "feed.2", problem=problem)
