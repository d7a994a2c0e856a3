"""A launch in stages: it goes on where guardrails hold, back where one breaks, and holds else."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from bench.quality import launches as bench
from hyperzero_torch.study.journal.launch_trace import LAUNCH_KINDS
from hyperzero_torch.study.launch import LaunchTerms
from hyperzero_torch.tuner.launch_evidence import rounds_needed, slacks_at, tightest

F64 = torch.float64
CONFIG = hz.TunerConfig(
    num_draws=40,
    num_samples=32,
    num_proposals=1,
    num_starts=0,
    initial_candidates=4,
    verification_share=0.0,
)
USERS = 1_000_000


def make(journal=None, study="feed", constraints=("guard >= -0.5%",)):
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.5}, ["gain", "guard"], "gain", list(constraints))
    return hz.Tuner(problem, CONFIG, journal, study)


def reply(plan, gain=0.02, guard=0.0, users=USERS, leave_out=(), lost=1.0, absurd=1.0):
    """An hour in which every arm but the control has these deltas.

    ``lost`` is what is left of the control's users; the last arm's gain is ``absurd`` times itself.
    """
    generator = torch.Generator().manual_seed(plan.round)
    arms = [i for i, c in enumerate(plan.candidate_ids) if c not in leave_out and plan.shares[i]]
    count = (torch.tensor([plan.shares[i] for i in arms], dtype=F64) * users).round()
    is_arm = torch.tensor([plan.candidate_ids[i] != 0 for i in arms]).unsqueeze(-1)
    true = torch.where(is_arm, torch.tensor([gain, guard], dtype=F64), 0.0)
    noise = torch.randn(len(arms), 2, generator=generator, dtype=F64) / count.sqrt().unsqueeze(-1)
    mean = 10 * (1 + true + 0.9 * noise)
    count[0] *= lost
    mean[-1, 0] *= absurd
    ids = [plan.candidate_ids[i] for i in arms]
    return hz.Readings(plan.round, ids, count, mean, torch.full_like(mean, 81.0))


def play(tuner, rounds, **how):
    plans = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hz.TunerWarning)
        for _ in range(rounds):
            plans.append(tuner.ask())
            tuner.tell(reply(plans[-1], **how))
    return plans


@pytest.fixture(scope="module")
def explored():
    """The state of a study that has explored for some hours."""
    tuner = make()
    play(tuner, 4)
    return tuner.state_dict()


def resumed(explored, **how):
    tuner = make(**how)
    tuner.load_state_dict(explored)
    return tuner


def verdicts(tuner):
    return [d.trace.verdict for d in tuner.decisions if d.kind == "launch decided"]


def test_a_good_candidate_passes_all_stages_and_the_base_keeps_its_holdback(explored):
    tuner = resumed(explored)
    num_candidates = tuner.history.num_candidates
    report = tuner.launch(2, unproven=True, who="ann", reason="it gains", keep_holdback=4)
    assert (report.outcome, report.stage, report.share) == ("planned", 1, 0.01)
    plans = play(tuner, 20)
    shares = [plan.shares[1] for plan in plans]
    assert sorted(set(shares)) == pytest.approx([0.01, 0.05, 0.25, 0.5, 0.95, 1.0])
    assert shares == sorted(shares)
    assert all(plan.candidate_ids == (0, 2) for plan in plans)
    assert all(sum(plan.shares) == pytest.approx(1, abs=1e-12) for plan in plans)
    assert shares.count(0.95) >= 4  # the holdback was kept as long as asked
    assert verdicts(tuner)[-1] == "complete"
    assert verdicts(tuner).count("launch") == 4
    words = [d.reason for d in tuner.decisions if d.kind == "launch decided"]
    assert words[0].startswith("launch: candidate 2 at 5 % of all users; gain +2.")
    assert "guardrail" in words[0]
    assert tuner.launch_status().outcome == "complete"
    assert tuner.history.num_candidates == num_candidates  # exploration rests
    assert all(any("candidate 2 at" in note for note in plan.notes) for plan in plans)


def test_a_harmful_candidate_goes_back_at_an_early_stage_and_is_stopped(explored):
    tuner = resumed(explored)
    tuner.launch(2, unproven=True)
    plans = play(tuner, 12, guard=-0.04)
    last = next(i for i, plan in enumerate(plans) if 2 not in plan.candidate_ids)
    assert last <= 8
    assert max(plan.shares[1] for plan in plans[:last]) <= 0.05
    assert plans[last].candidate_ids == (0,)
    assert plans[last].shares == (1.0,)  # all users get the control at once
    assert 2 in tuner.stopped
    assert tuner.launch_status().outcome == "gone back"
    assert "guard >= -0.5%" in tuner.launch_status().reason
    assert all(2 not in plan.candidate_ids for plan in plans[last:])
    assert len(plans[-1]) > 2  # and then the study explores as before


def test_a_candidate_worse_than_the_base_goes_back_but_is_not_stopped(explored):
    tuner = resumed(explored)
    tuner.launch(2, unproven=True)
    plans = play(tuner, 12, gain=-0.05)
    assert any(plan.candidate_ids == (0,) for plan in plans)
    assert 2 not in tuner.stopped
    assert "worse than the base" in tuner.launch_status().reason


def test_whoever_is_killed_goes_on_from_the_journal(explored, tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    tuner, other = resumed(explored, journal=url), resumed(explored)
    for each in (tuner, other):
        each.launch(2, unproven=True, who="ann", stages=(0.02, 0.2, 1.0), holdback=0.1)
    ours = []
    for _ in range(8):
        tuner = hz.Tuner.resume(url, "feed", problem=tuner.problem)  # a new process every hour
        ours += play(tuner, 1)
    assert [p.to_dict() for p in ours] == [p.to_dict() for p in play(other, 8)]
    assert tuner.launch_status() == other.launch_status()
    assert tuner.launch_status().who == "ann"


@pytest.mark.parametrize("what", ["candidate", "control", "all"])
def test_readings_that_are_missing_hold_it(explored, what):
    tuner = resumed(explored)
    tuner.launch(2, unproven=True, stages=(0.5, 1.0))
    play(tuner, 1)
    left = {"candidate": (2,), "control": (0,), "all": (0, 2)}[what]
    plans = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hz.TunerWarning)
        for _ in range(14):
            plans.append(tuner.ask())
            if what != "all":
                tuner.tell(reply(plans[-1], leave_out=left))
    assert max(plan.shares[1] for plan in plans) <= 0.5
    assert "launch" not in verdicts(tuner)
    held = [d.trace.code for d in tuner.decisions if d.kind == "launch decided"]
    assert "missing" in held
    if what == "all":  # back to the control by half each round
        assert plans[-1].shares[1] < 0.05


def test_absurd_readings_hold_it_until_somebody_accepts_them(explored):
    tuner = resumed(explored)
    tuner.launch(2, unproven=True, stages=(0.3, 1.0))
    play(tuner, 1)
    plan = tuner.ask()
    with pytest.warns(hz.TunerWarning):
        tuner.tell(reply(plan, absurd=1e9))
    play(tuner, 4)
    assert verdicts(tuner) == ["hold"]
    assert "set aside" in tuner.launch_status().reason
    tuner.study.set_aside([plan.round], "a broken hour")
    tuner.study.accept_readings("they are excluded with their round")
    play(tuner, 1)
    assert verdicts(tuner) == ["hold", "launch"]


def test_users_that_do_not_fit_the_shares_hold_it(explored):
    tuner = resumed(explored)
    tuner.launch(2, unproven=True, stages=(0.3, 1.0))
    play(tuner, 6, lost=0.9)
    assert "launch" not in verdicts(tuner)
    assert "users" in {d.trace.code for d in tuner.decisions if d.kind == "launch decided"}


def test_somebody_stops_the_candidate_by_hand_or_rolls_the_study_back(explored):
    tuner = resumed(explored)
    tuner.launch(2, unproven=True)
    play(tuner, 2)
    tuner.study.roll_back(2, "a wrong model was live")
    assert tuner.launch_status().outcome == "rolled back"
    assert len(tuner.ask()) > 2


def test_an_aborted_launch_leaves_the_candidate_as_it_was(explored):
    tuner = resumed(explored)
    tuner.launch(2, unproven=True)
    play(tuner, 1)
    with pytest.raises(hz.LaunchError, match="reason"):
        tuner.abort_launch("")
    tuner.abort_launch("support tickets", who="bob")
    assert tuner.launch_status().reason == "Launch of candidate 2 aborted by bob: support tickets"
    assert 2 not in tuner.stopped
    assert len(tuner.ask()) > 2
    with pytest.raises(hz.LaunchError, match="no launch is under way"):
        tuner.abort_launch("again")


def refused(tuner, error, match, *arguments, **terms):
    before = tuner.history.num_entries
    with pytest.raises(error, match=match):
        tuner.launch(*arguments, **terms)
    assert tuner.study.sync().num_entries == before


def test_bad_input_gets_one_clear_error_and_changes_nothing(explored):
    refused(make(), hz.RoundError, "no round was planned")
    tuner = resumed(explored)
    refused(tuner, hz.LaunchError, "not proven safe.*--unproven", 2)
    refused(tuner, hz.LaunchError, "candidates are 1 to", 99, unproven=True)
    refused(tuner, hz.LaunchError, "candidate 0 cannot be launched", 0, unproven=True)
    refused(tuner, hz.ConfigError, "ascend", 2, unproven=True, stages=(0.5, 0.1))
    refused(tuner, hz.ConfigError, "above 0 and up to 1", 2, unproven=True, stages=(5.0,))
    refused(tuner, hz.ConfigError, "holdback of 0.6", 2, unproven=True, holdback=0.6)
    refused(tuner, hz.ConfigError, "holdbak", 2, unproven=True, holdbak=0.1)
    tuner.launch(2, unproven=True, dry_run=True)
    assert tuner.launch_status() is None
    tuner.launch(2, unproven=True)
    refused(tuner, hz.LaunchError, "candidate 2 is being launched", 3, unproven=True)


def test_a_stopped_candidate_is_let_back_in_first(explored):
    tuner = resumed(explored)
    tuner.launch(2, unproven=True)
    play(tuner, 6, guard=-0.04)
    assert 2 in tuner.stopped
    refused(tuner, hz.LaunchError, "candidates readmit --candidate 2", 2, unproven=True)
    tuner.study.readmit([2], "the log was broken")
    tuner.launch(2, unproven=True)


def test_where_the_base_is_recommended_there_is_nothing_to_launch():
    tuner = make(constraints=["guard >= -0.5%"])
    play(tuner, 2, gain=-0.05)
    refused(tuner, hz.LaunchError, "nothing to launch")


def test_a_journal_of_people_who_wrote_such_remarks_still_opens():
    tuner = make()
    tuner.ask()
    for kind in LAUNCH_KINDS:
        with pytest.raises(hz.ConfigError, match="kind"):
            tuner.study.note(kind, "by hand")


@settings(max_examples=30, deadline=None)
@given(
    stages=st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True),
    holdback=st.integers(1, 60),
    rounds=st.integers(1, 6),
    slack=st.sampled_from([0.01, 0.0, -0.02]),
)
def test_the_base_never_has_less_than_its_holdback(stages, holdback, rounds, slack):
    stages = [s / 100 for s in sorted(stages)]
    stages = [s for s in stages[:-1] if s < 1 - holdback / 100] + stages[-1:]
    terms = LaunchTerms(stages=tuple(stages), holdback=holdback / 100)
    for (history, plan), _ in zip(bench.rounds_of(slack, 1, 100_000, terms), range(rounds)):
        launch = history.status.launches[-1]
        assert launch.outcome in ("under way", "gone back")
        assert plan.shares[0] >= holdback / 100 - 1e-12
        assert sum(plan.shares) == pytest.approx(1, abs=1e-12)
        if plan.candidates == (0, 1):
            assert plan.shares[1] <= stages[launch.stage] + 1e-12


def test_harmless_launches_are_seldom_sent_back_and_harmful_ones_always():
    """The bench has more of them, with their stages: bench/results/launches.json."""
    harmless = [bench.launch((0.003, seed)) for seed in range(100, 112)]
    assert sum(row["outcome"] == "gone back" for row in harmless) <= 2
    assert sum(row["outcome"] == "complete" for row in harmless) >= 10
    harmful = [bench.launch((-0.02, seed)) for seed in range(100, 112)]
    assert all(row["outcome"] == "gone back" for row in harmful)
    assert max(row["stage"] for row in harmful) <= 2


def test_the_expected_rounds_are_those_after_which_the_bound_reaches_the_margin():
    from hyperzero_torch.stats import sequential

    slack, per_round = torch.tensor([0.001], dtype=F64), torch.tensor([1e-4], dtype=F64)
    num = rounds_needed(slack, torch.zeros(1, dtype=F64), per_round, 0.01, 0.004)
    tight = tightest(0.01, 0.004)
    bounds = [float(sequential.lower(slack, per_round / n, 0.01, tight)[0]) for n in (num - 1, num)]
    assert bounds[0] < -0.004 <= bounds[1]
    # A guardrail that is broken by more than the margin is never certain to hold.
    assert rounds_needed(-5 * slack, torch.zeros(1, dtype=F64), per_round, 0.01, 0.004) is None


def test_the_objective_counts_relative_to_the_base_where_it_has_a_level():
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0)])
    problem = hz.Problem(
        space, {"a": 0.5}, ["gain", "guard"], "2 * level(gain)", ["level(guard) <= 9"],
        base_levels={"gain": 4.0, "guard": 8.0},
    )  # fmt: skip
    slack, gain = slacks_at(problem, torch.tensor([0.1, 0.05], dtype=F64)).tolist()
    assert gain == pytest.approx(0.1)
    assert slack == pytest.approx(9 - 8 * 1.05)
