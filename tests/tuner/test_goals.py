"""Goals of a running study: changed on purpose, journaled, followed at once, on kept evidence."""

import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.study.journal.goals_trace import GOALS, GoalsChanged

CONFIG = hz.TunerConfig(
    num_draws=60,
    num_samples=64,
    num_proposals=2,
    num_starts=0,
    initial_candidates=8,
    drift_alpha=None,
    verification_share=0.0,
    max_untested_share=1.0,
    max_untested_total=1.0,
    max_risky_total=1.0,
    max_risk=1.0,
)
BASE = {"a": 0.4, "b": 0.6}
METRICS = ["gain", "guard", "spare"]


def problem(objective="gain", constraints=("guard >= -0.1%",), a=(0.0, 1.0), b=(0.0, 1.0), **more):
    ties = more.pop("ties", ())
    space = hz.SearchSpace([hz.Float("a", *a), hz.Float("b", *b)], ties)
    given_ = {"base": BASE, "metrics": METRICS} | more
    return hz.Problem(space, objective=objective, constraints=list(constraints), **given_)


def levels(theta):
    """True means of the metrics by theta: gain rises with a, guard falls with b, spare with a."""
    a, b = theta[:, 0], theta[:, 1]
    return 10 * torch.stack([1 + 0.1 * a, 1 - 0.02 * b, 1 - 0.05 * a], -1)


def true_delta(theta):
    base = torch.tensor([list(BASE.values())], dtype=torch.float64)
    return levels(theta) / levels(base) - 1


def reply(plan, users=4e6, metrics=METRICS):
    generator = torch.Generator().manual_seed(plan.round)
    mean = levels(plan.theta)
    count = users * torch.tensor(plan.shares).unsqueeze(-1).expand_as(mean)
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    mean = mean + noise / count.sqrt()
    keep = [METRICS.index(m) for m in metrics]
    fields = (count[:, keep], mean[:, keep], torch.ones_like(mean)[:, keep])
    return hz.Readings(plan.round, plan.candidate_ids, *fields, metrics=list(metrics))


def play(tuner, rounds, **how):
    for _ in range(rounds):
        tuner.tell(reply(tuner.ask(), **how))


def study(rounds=5, journal=None, **how):
    tuner = hz.Tuner(problem(**how), CONFIG, journal, seed=3)
    play(tuner, rounds)
    return tuner


def copy_of(tuner, given_problem):
    other = hz.Tuner(given_problem)
    other.load_state_dict(tuner.state_dict())
    return other


def entries(tuner):
    return tuner.journal.read(tuner.study.name)


# --- guardrails -----------------------------------------------------------------------------------


def test_a_looser_guardrail_lets_back_exactly_those_that_keep_it():
    tuner = study(6)
    stopped = set(tuner.stopped)
    guard = true_delta(tuner.history.theta)[:, 1]
    assert stopped == {c for c in stopped if guard[c] < -0.001}
    keep_it = {c for c in stopped if guard[c] > -0.004}
    break_it = {c for c in stopped if guard[c] < -0.006}
    assert keep_it
    assert break_it
    effect = tuner.change_goals(
        problem(constraints=["guard >= -0.5%"]), reason="half a percent is fine", by="ann"
    )
    assert effect.changed
    assert keep_it <= set(effect.let_back)
    assert break_it <= set(tuner.stopped)
    assert set(effect.let_back) == stopped - set(tuner.stopped)
    assert {c for c, _ in effect.stopped} == stopped - set(effect.let_back)
    assert all("guard >= -0.5%" in why for _, why in effect.stopped)
    change = next(d for d in tuner.decisions if d.kind == GOALS)
    assert (change.reason, change.trace.by) == ("half a percent is fine", "ann")
    assert change.trace.differences == (
        "constraints: the guardrail 'guard >= -0.1%' is loosened: 'guard >= -0.5%' from here on",
    )
    served = set()
    for _ in range(4):
        plan = tuner.ask()
        served |= set(plan.candidate_ids)
        assert not served & set(tuner.stopped)
        tuner.tell(reply(plan))


def test_a_removed_guardrail_lets_all_back_and_a_tighter_one_stops_at_once():
    tuner = study(6)
    stopped = tuner.stopped
    assert tuner.change_goals(problem(constraints=[]), reason="none").let_back == stopped
    assert tuner.stopped == ()
    guard = true_delta(tuner.history.theta)[:, 1]
    tested = tuner.bucket().tested
    effect = tuner.change_goals(problem(constraints=["guard >= 0"]), reason="strict")
    surely = {c for c in range(1, len(guard)) if tested[c] and guard[c] < -0.002}
    assert surely
    assert surely <= set(tuner.stopped)
    assert not {c for c in tuner.stopped if guard[c] >= 0}
    assert {c for c, _ in effect.stopped} == set(tuner.stopped)


def test_who_was_stopped_by_a_guardrail_that_stays_is_not_judged_anew():
    tuner = study(6)
    stopped = tuner.stopped
    both = problem(constraints=["guard >= -0.1%", "spare >= -50%"])
    assert tuner.change_goals(both, reason="one more").let_back == ()
    assert tuner.change_goals(problem("spare"), reason="one less").let_back == ()
    assert tuner.stopped == stopped


def test_a_candidate_of_a_rollback_stays_withdrawn_whatever_the_guardrails():
    tuner = study(6)
    tuner.study.roll_back(2, "a faulty ranker")
    gone = {c.candidate for c in tuner.history.candidates if c.round > 2} - {
        c for d in tuner.decisions if d.kind == "stopped" for c in d.trace.candidates
    }
    assert gone
    tuner.change_goals(problem(constraints=[]), reason="none")
    assert gone <= set(tuner.stopped)


# --- the objective --------------------------------------------------------------------------------


def test_the_recommendation_follows_the_objective_at_once():
    tuner = study(6, constraints=[])
    theta = tuner.history.theta
    best = tuner.recommend().candidate_id
    effect = tuner.change_goals(problem("spare", constraints=[]), reason="other metric")
    assert effect.before.candidate_id == best
    assert effect.after == tuner.recommend()
    assert theta[best, 0] > 0.7
    assert theta[effect.after.candidate_id, 0] < 0.3
    plan = tuner.ask()
    shares = torch.tensor(plan.shares[1:], dtype=torch.float64)
    assert float((shares * plan.theta[1:, 0]).sum() / shares.sum()) < 0.4


def test_a_plan_after_a_change_is_the_same_as_in_a_study_opened_anew(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    tuner = study(5, url)
    changed = problem("gain + spare", ["guard >= -0.3%"], a=(0.2, 0.9), b=(-0.5, 1.5))
    tuner.change_goals(changed, reason="weights and bounds", by="ann")
    other = copy_of(tuner, changed)
    assert [tuner.ask(r) for r in (5,)] == [other.ask(5)]
    for each in (tuner, other):
        each.tell(reply(each.ask(5)))
    resumed = hz.Tuner.resume(url, problem=changed)
    assert resumed.ask(6) == other.ask(6)
    assert entries(resumed) == [*entries(other)]
    for each in (resumed, other):
        play(each, 1)
        assert all(changed.space.contains(each.ask().theta))
    assert resumed.recommend() == other.recommend()


# --- bounds ---------------------------------------------------------------------------------------


def test_outside_narrower_bounds_nothing_is_served_and_its_evidence_counts():
    tuner = study(5, constraints=[])
    theta = tuner.history.theta
    inside = (theta[:, 0] >= 0.1) & (theta[:, 0] <= 0.6)
    narrow = problem(constraints=[], a=(0.1, 0.6))
    effect = tuner.change_goals(narrow, reason="not beyond 0.6")
    assert set(effect.outside) == set((~inside).nonzero().flatten().tolist())
    weight = tuner.bucket().weight
    assert bool((weight[list(effect.outside)] > 0).any())
    assert len(tuner.surrogate().x) == 1 + int(tuner.bucket().tested.sum())  # and the base
    for _ in range(4):
        plan = tuner.ask()
        assert bool(narrow.space.contains(plan.theta).all())
        assert not set(plan.candidate_ids) & set(effect.outside)
        tuner.tell(reply(plan))
    assert tuner.recommend().parameters["a"] <= 0.6
    with pytest.raises(hz.RoundError, match="outside the bounds"):
        tuner.study.readmit([effect.outside[0]], "please")
    back = tuner.change_goals(problem(constraints=[]), reason="wide again")
    assert set(back.let_back) == set(effect.outside)
    assert tuner.stopped == ()


def test_wider_bounds_are_used():
    tuner = study(6, constraints=[])
    tuner.change_goals(problem(constraints=[], a=(0.0, 2.0)), reason="room above")
    play(tuner, 6)
    assert tuner.recommend().parameters["a"] > 1.2


def test_a_stop_outlives_bounds_that_come_and_go():
    tuner = study(6)
    stopped = set(tuner.stopped)
    tuner.change_goals(problem(a=(0.0, 0.6)), reason="narrow")
    outside = set(tuner.history.status.outside)
    assert outside
    assert not outside & stopped
    assert set(tuner.stopped) == stopped | outside
    assert tuner.change_goals(problem(), reason="wide").let_back == tuple(sorted(outside))
    assert set(tuner.stopped) == stopped


def test_constraints_on_theta_are_goals_too():
    tuner = study(4, constraints=[])
    tied = problem(constraints=[], ties=["a + b <= 1.2"])
    tuner.change_goals(tied, reason="a budget")
    play(tuner, 2)
    plan = tuner.ask()
    assert bool((plan.theta.sum(-1) <= 1.2 + 1e-9).all())
    assert hz.Tuner.resume(tuner.journal, problem=tied).ask(plan.round) == plan


@pytest.mark.parametrize(
    ("old", "new", "factor"),
    [
        (hz.Float("p", 0, 1), hz.Float("p", 0, 2), 1 / 2),
        (hz.Float("p", 0, 2), hz.Float("p", 0.5, 1.5), 2.0),
        (hz.Float("p", 0.1, 10, log=True), hz.Float("p", 0.01, 100, log=True), 1 / 2),
        (hz.Int("p", 1, 4), hz.Int("p", 1, 8), 1 / 2),
        (hz.Float("p", 0, 1), hz.Float("p", 1, 2), 1.0),
    ],
)
def test_a_lengthscale_keeps_its_length_in_the_users_units(old, new, factor):
    def with_(p):
        return hz.Problem(hz.SearchSpace([p, hz.Float("q", 0, 1)]), {"p": 1, "q": 0.5},
                          ["m"], "m")  # fmt: skip

    tuner = hz.Tuner(with_(old), CONFIG)
    for _ in range(3):
        plan = tuner.ask()
        mean = 10 + plan.theta[:, :1]
        count = 1e5 * torch.tensor(plan.shares).unsqueeze(-1)
        tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.ones_like(mean)))
    (before,) = tuner.history.warm_start.lengthscale
    tuner.change_goals(with_(new), reason="bounds")
    (after,) = tuner.history.warm_start.lengthscale
    assert after == pytest.approx((before[0] * factor, before[1]), rel=1e-12)


def test_a_rollback_keeps_the_goals_and_fits_in_todays_bounds():
    tuner = study(6, constraints=[])
    fit = tuner.history.plans[3].trace.hyperparameters.lengthscale
    goals = problem("spare", constraints=[], a=(0.0, 4.0))
    tuner.change_goals(goals, reason="other goals")
    tuner.study.roll_back(3, "a faulty ranker")
    assert tuner.problem.objective_name == "spare"
    start = tuner.history.warm_start.lengthscale
    assert [row[0] for row in start] == pytest.approx([row[0] / 4 for row in fit], rel=1e-12)
    assert [row[1] for row in start] == pytest.approx([row[1] for row in fit], rel=1e-12)
    assert copy_of(tuner, goals).ask() == tuner.ask()


# --- options --------------------------------------------------------------------------------------


def choice(options, base="x"):
    space = hz.SearchSpace([hz.Choice("mode", options), hz.Float("w", 0.0, 1.0)])
    return hz.Problem(space, {"mode": base, "w": 0.5}, ["m"], "m")


def choose(tuner, rounds):
    worth = {"x": 0.0, "y": 0.5, "z": 1.0, "v": 3.0}
    for _ in range(rounds):
        plan = tuner.ask()
        mean = torch.tensor([[10 + worth[p["mode"]] + p["w"]] for p in plan.parameters])
        count = 1e6 * torch.tensor(plan.shares).unsqueeze(1)
        tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, torch.ones_like(mean)))
    return {p["mode"] for p in tuner.ask().parameters}


def test_options_come_and_go_and_keep_their_indices():
    tuner = hz.Tuner(choice(["x", "y", "z"]), CONFIG)
    choose(tuner, 4)
    assert tuner.recommend().parameters["mode"] == "z"
    before = tuner.history.theta
    fewer = choice(["y", "x"])  # their order is the study's own
    effect = tuner.change_goals(fewer, reason="z is retired")
    assert effect.differences == (
        "parameters: the options ['z'] of 'mode' are not served any more",
    )
    assert set(effect.outside) == set((before[:, 0] == 2).nonzero().flatten().tolist())
    assert choose(tuner, 3) <= {"x", "y"}
    assert tuner.recommend().parameters["mode"] == "y"
    assert copy_of(tuner, fewer).ask(8) == tuner.ask(8)
    more = choice(["v", "x", "y"])
    tuner.change_goals(more, reason="v is new")
    assert tuner.problem.space.num_dims == 5  # z keeps its coordinate
    choose(tuner, 6)
    best = tuner.recommend()
    assert best.parameters["mode"] == "v"
    assert tuner.history.theta[best.candidate_id, 0] == 3
    assert torch.equal(tuner.history.theta[: len(before)], before)
    assert [p["mode"] for p in tuner.ask(0).parameters] == [
        c.parameters["mode"] for c in tuner.history.candidates[: len(tuner.ask(0))]
    ]
    source = hz.transfer.Source
    assert isinstance(hz.transfer.from_bucket(tuner.problem, tuner.bucket(), "s"), source)
    with pytest.raises(hz.SpaceError, match="none of its options"):
        tuner.posterior({"mode": "z", "w": 0.5})
    for round_ in (1, 5, 9):
        assert tuner.explain(round_).arms


def test_a_source_from_a_journal_whose_options_changed(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    tuner = hz.Tuner(choice(["x", "y", "z"]), CONFIG, url, "feed")
    choose(tuner, 3)
    tuner.change_goals(choice(["z", "x"]), reason="y is retired")
    source = hz.transfer.from_journal(f"{url}#feed")
    modes = {p["mode"] for p in source.parameters}
    assert modes == {"x", "y", "z"}
    by_mode = {p["mode"]: m for p, m in zip(source.parameters, source.mean[:, 0].tolist())}
    assert by_mode["z"] > by_mode["y"] - 0.06


# --- what stays ----------------------------------------------------------------------------------


def test_a_round_is_explained_by_the_goals_that_held_then():
    tuner = study(5)
    before = [repr(tuner.explain(r)) for r in range(5)]  # NaN is not equal to itself
    effect = tuner.change_goals(
        problem("spare", ["spare >= -1%"], a=(0.0, 0.5)), reason="all is other", by="ann"
    )
    play(tuner, 2)
    assert [repr(tuner.explain(r)) for r in range(5)] == before
    after = tuner.explain(5)
    assert (
        after.remarks[0]
        == f"goals were changed by ann (all is other): {'; '.join(effect.differences)}"
    )
    assert not any("goals were changed" in r for r in tuner.explain(6).remarks)


def test_compacted_evidence_serves_other_goals():
    config = hz.TunerConfig(
        block_rounds=24, num_draws=8, num_samples=16, initial_candidates=3, max_arms=3,
        proposal_probability=0, verification_share=0, drift_alpha=None,
    )  # fmt: skip
    tuner = hz.Tuner(problem(constraints=[]), config, seed=3)
    for _ in range(49):
        tuner.tell(reply(tuner.ask()))
    twin = copy_of(tuner, problem(constraints=[]))
    assert tuner.study.compact(0).rounds
    for each in (tuner, twin):
        each.change_goals(problem("spare", constraints=["guard >= -0.2%"]), reason="other", by="x")
    assert tuner.ask(49) == twin.ask(49)
    assert tuner.recommend() == twin.recommend()


def test_levels_and_base_levels_are_goals():
    tuner = study(4, constraints=["level(guard) >= 9.9"], base_levels=[10.4, 9.88, 9.8])
    assert not tuner.recommend().prob_feasible > 0.9 or tuner.recommend().candidate_id
    effect = tuner.change_goals(problem(constraints=["level(guard) >= 9.9"]), reason="estimate")
    assert effect.differences == (
        "base_levels: [10.4, 9.88, 9.8] before, estimated from the control from here on",
    )
    assert torch.allclose(
        tuner.bucket().base_levels, levels(torch.tensor([[0.4, 0.6]]))[0].double(), rtol=1e-3
    )


# --- who may, and what is refused ----------------------------------------------------------------


def refused(error, match, tuner, given_problem, **how):
    before = entries(tuner)
    with pytest.raises(error, match=match):
        tuner.change_goals(given_problem, **({"reason": "because"} | how))
    assert entries(tuner) == before
    assert tuner.problem.spec() == problem().spec()


def test_what_cannot_change_is_one_clear_error_and_nothing_is_written():
    tuner = study(2)
    more = hz.SearchSpace([hz.Float(n, 0.0, 1.0) for n in "abc"])
    new = hz.Problem(more, BASE | {"c": 0.5}, METRICS, "gain")
    mismatch = hz.StudyMismatchError
    refused(mismatch, r"parameters: \['c'\] are new.*start another study", tuner, new)
    other_base = problem(base={"a": 0.5, "b": 0.6})
    refused(mismatch, "deltas are measured against the base", tuner, other_base)
    metrics = problem(metrics=[*METRICS, "revenue"], constraints=["revenue >= -1%"])
    refused(mismatch, r"\['revenue'\] were never collected", tuner, metrics)
    fewer = problem(metrics=METRICS[:2])
    refused(mismatch, r"\['spare'\] are missing.*no goal uses", tuner, fewer)
    refused(mismatch, "the order is the study's", tuner, problem(metrics=METRICS[::-1]))
    space = hz.SearchSpace([hz.Float("a", 0.1, 1.0, log=True), hz.Float("b", 0.0, 1.0)])
    log = hz.Problem(space, BASE, METRICS, "gain", ["guard >= -0.1%"])
    refused(mismatch, "the scale is the study's", tuner, log)
    space = hz.SearchSpace([hz.Float("b", 0.0, 1.0), hz.Float("a", 0.0, 1.0)])
    turned = hz.Problem(space, BASE, METRICS, "gain", ["guard >= -0.1%"])
    refused(mismatch, "parameters: the order is the study's", tuner, turned)
    refused(hz.RoundError, "give a reason", tuner, problem("spare"), reason=" ")
    refused(hz.ProblemError, "name of a person", tuner, problem("spare"), by="")
    with pytest.raises(hz.SpaceError, match=r"base: parameter 'a' = 0.4 lies outside"):
        problem(a=(0.5, 1.0))


def test_a_metric_that_was_listed_and_never_reported_is_no_goal():
    tuner = hz.Tuner(problem(), CONFIG)
    play(tuner, 3, metrics=["gain", "guard"])
    goals = problem(constraints=["guard >= -0.1%", "spare >= -1%"])
    refused(hz.ProblemError, r"\['spare'\]: no reading", tuner, goals)
    tuner.tell(reply(tuner.ask(), metrics=METRICS))
    assert tuner.change_goals(goals, reason="now it is there").changed


def test_no_change_is_said_and_not_journaled():
    tuner = study(2)
    before = entries(tuner)
    with pytest.warns(hz.TunerWarning, match="nothing was changed"):
        assert not tuner.change_goals(problem(), reason="again").changed
    assert entries(tuner) == before


def test_a_dry_run_writes_nothing_and_shows_what_would_follow():
    tuner = study(6)
    before, plan = entries(tuner), copy_of(tuner, problem()).ask()
    goals = problem("spare", ["guard >= -0.5%"], a=(0.1, 0.8))
    shown = tuner.change_goals(goals, reason="try", dry_run=True)
    assert entries(tuner) == before
    assert tuner.problem.spec() == problem().spec()
    assert copy_of(tuner, problem()).ask() == plan
    assert tuner.change_goals(goals, reason="do") == shown
    assert tuner.recommend() == shown.after


def test_an_edited_problem_is_refused_with_what_differs_and_what_to_do():
    tuner = study(2)
    edited = problem("spare", ["guard >= -0.5%"])
    with pytest.raises(hz.StudyMismatchError) as caught:
        hz.Tuner.resume(tuner.journal, problem=edited)
    text = str(caught.value)
    for part in (
        "objective: 'gain' before, 'spare'",
        "is loosened",
        "change_goals",
        "hyperzero goals",
    ):
        assert part in text
    resumed = hz.Tuner.resume(tuner.journal, problem=edited, change_goals="we said so", by="bo")
    assert resumed.problem.objective_name == "spare"
    assert next(d for d in resumed.decisions if d.kind == GOALS).trace.by == "bo"
    assert tuner.ask().round == 2  # the other process follows: these goals are texts
    assert tuner.problem.spec() == edited.spec()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hz.Tuner.resume(tuner.journal, problem=edited).ask(2) == tuner.ask(2)


def gain_alone(delta):
    return delta[..., 0]


def spare_alone(delta):
    return delta[..., 2]


def test_goals_with_callables():
    tuner = study(3)
    other = hz.Tuner.resume(tuner.journal, problem=problem())
    tuner.change_goals(problem(spare_alone), reason="a module")
    tuner.tell(reply(tuner.ask()))
    assert tuner.explain(1).arms  # planned under a text, which the journal has
    for _ in range(2):
        with pytest.raises(hz.StudyMismatchError, match="'spare_alone' is a callable"):
            other.ask()
    assert hz.Tuner.resume(tuner.journal, problem=problem(spare_alone)).ask(3) == tuner.ask(3)
    with pytest.raises(hz.StudyMismatchError, match=r"is a callable.*Resume it with its own"):
        hz.Tuner.resume(tuner.journal, problem=problem(), change_goals="back to a text")
    tuner.change_goals(problem("gain"), reason="back")
    assert tuner.explain(1).arms
    with pytest.raises(hz.RoundError, match="'spare_alone' is a callable"):
        tuner.explain(3)


def test_goals_before_the_first_plan():
    tuner = hz.Tuner(problem(), CONFIG)
    effect = tuner.change_goals(problem("spare", a=(0.3, 0.5)), reason="a typo")
    assert effect.before is None
    plan = tuner.ask()
    assert plan.round == 0
    assert bool((plan.theta[:, 0] >= 0.3).all())
    assert tuner.explain(0).arms


def test_a_state_with_changed_goals_loads_into_a_persistent_study(tmp_path):
    tuner = study(3)
    goals = problem("spare", a=(0.2, 1.0))
    tuner.change_goals(goals, reason="other")
    with pytest.raises(hz.StudyMismatchError, match="objective"):
        hz.Tuner(problem()).load_state_dict(tuner.state_dict())
    url = f"sqlite:///{tmp_path / 'copy.db'}"
    copied = hz.Tuner(goals, journal=url, seed=3)
    copied.load_state_dict(tuner.state_dict())
    assert hz.Tuner.resume(url, problem=goals).ask(3) == tuner.ask(3)
    assert copied.explain(1).arms == tuner.explain(1).arms


def test_a_remark_of_earlier_code_under_this_name_is_a_remark():
    from hyperzero_torch.study.journal import Decision
    from hyperzero_torch.study.journal.trace import Remark

    assert isinstance(Decision(0, GOALS, "we changed goals", {"a": 1}).trace, Remark)
    tuner = study(1)
    with pytest.raises(hz.ConfigError, match="kind"):
        tuner.study.note(GOALS, "by hand")


# --- any sequence --------------------------------------------------------------------------------

bound = st.sampled_from([-0.05, -0.005, -0.001, 0.0])
change = st.builds(
    lambda objective, bounds, low, high: problem(
        objective, [f"guard >= {b}" for b in bounds], a=(low, high)
    ),
    st.sampled_from(["gain", "spare", "gain + 0.5 * spare"]),
    st.lists(bound, max_size=2, unique=True),
    st.sampled_from([0.0, 0.1, 0.3, -1.0]),
    st.sampled_from([0.5, 0.7, 1.0, 2.0]),
)


@settings(max_examples=5, deadline=None)
@given(st.lists(change, min_size=1, max_size=2), st.integers(0, 1))
def test_whatever_the_goals_nothing_is_served_outside_them(changes, rounds):
    tuner = study(2)
    for goals in changes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", hz.TunerWarning)
            tuner.change_goals(goals, reason="drawn", by="hypothesis")
            for _ in range(rounds + 1):
                plan = tuner.ask()
                assert bool(goals.space.contains(plan.theta).all())
                assert not set(plan.candidate_ids) & set(tuner.stopped)
                assert sum(plan.shares) == pytest.approx(1)
                tuner.tell(reply(plan))
            theta = tuner.history.theta
            outside = set((~goals.space.contains(theta)).nonzero().flatten().tolist())
            assert outside <= set(tuner.stopped)
            assert tuner.recommend().candidate_id not in outside
            twin = copy_of(tuner, goals)
            next_round = tuner.history.last_round + 1
            assert twin.ask(next_round) == tuner.ask(next_round)
            assert twin.history.status == tuner.history.status
    held = [d.trace for d in tuner.decisions if isinstance(d.trace, GoalsChanged)]
    assert all(a.after == b.before for a, b in pairwise(held))


def test_a_resume_that_is_refused_leaves_goals_and_configuration_as_they_were():
    tuner = study(2)
    before = entries(tuner)
    other = CONFIG.model_copy(update={"num_draws": 7})
    edited = problem("spare")
    with pytest.raises(hz.InputError):
        hz.Tuner.resume(
            tuner.journal, problem=edited, config=other, sources=["memory:#x"], change_goals="so"
        )
    more = problem(metrics=[*METRICS, "revenue"])
    with pytest.raises(hz.StudyMismatchError):
        hz.Tuner.resume(tuner.journal, problem=more, config=other, change_goals="so")
    assert entries(tuner) == before
    resumed = hz.Tuner.resume(tuner.journal, problem=edited, config=other, change_goals="so")
    assert resumed.config.num_draws == 7
    assert resumed.problem.objective_name == "spare"
