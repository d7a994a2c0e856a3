"""What nobody has measured is served to few: caps, the harm budget, and the start near the base."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.tuner.limits import Group, Limits
from hyperzero_torch.tuner.price import priced
from hyperzero_torch.tuner.traffic import shares

SLACK = 1e-9
SMALL = {"num_draws": 128, "num_samples": 64, "initial_candidates": 16, "num_starts": 0}
ROUNDS = 7


def measured(history, guarded):
    """By each plan's time: candidates with a reading of users on every guardrail's metric.

    A reading needs the control's of its round. Counted from the messages, not by the package.
    """
    have = {}
    for table in history.tables.values():
        if not (table.count[0, guarded] > 0).all():
            continue
        for row, candidate in enumerate(table.candidates):
            have.setdefault(int(candidate), set()).update(
                m for m in guarded if table.count[row, m] > 0
            )
    return {c for c, metrics in have.items() if metrics >= set(guarded)}


def play(world, config, rounds=ROUNDS, seed=0):
    """Each plan, and the candidates measured before it."""
    tuner = hz.Tuner(world.problem, config, seed=seed)
    guarded = world.problem.guarded_metrics.any(0).nonzero().flatten().tolist()
    mail, plans = {}, []
    for round_ in range(rounds):
        for readings in mail.pop(round_, []):
            tuner.tell(readings)
        known = measured(tuner.history, guarded)
        plan = tuner.ask(round_)
        plans.append((plan, known))
        for due, readings in world.serve(plan):
            mail.setdefault(max(due, round_ + 1), []).append(readings)
    return tuner, plans


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    each=st.floats(0.002, 0.3),
    factor=st.floats(1, 20),
    risky=st.floats(0.01, 0.5),
    delay=st.integers(0, 4),
    guardrails=st.integers(1, 2),
    seed=st.integers(0, 50),
    traffic=st.sampled_from([1.0, 0.05]),
)
def test_nobody_unmeasured_is_served_above_the_caps(
    each, factor, risky, delay, guardrails, seed, traffic
):
    world = GuardrailWorld(seed, delay=delay, num_guardrails=guardrails, traffic=traffic)
    together = min(1.0, each * factor)
    config = hz.TunerConfig(
        max_untested_share=each, max_untested_total=together, max_risky_total=risky, **SMALL
    )
    for plan, known in play(world, config)[1]:
        assert sum(plan.shares) == pytest.approx(1, abs=1e-9)
        assert min(plan.shares) >= 0
        new = [s for c, s in zip(plan.candidate_ids, plan.shares) if c and c not in known]
        assert max(new, default=0) <= each + SLACK
        assert sum(new) <= together + SLACK


def test_the_default_serves_little_of_what_nobody_has_measured():
    tuner, plans = play(GuardrailWorld(3, dims=4), hz.TunerConfig(), rounds=8)
    for plan, known in plans:
        new = [s for c, s in zip(plan.candidate_ids, plan.shares) if c and c not in known]
        assert max(new, default=0) <= tuner.config.max_untested_share + SLACK
        assert sum(new) <= tuner.config.max_untested_total + SLACK
        exposure = tuner.history.plans[plan.round].trace.exposure
        assert exposure.untested >= sum(new) - 1e-6  # stored to six digits
        assert exposure.risky <= tuner.config.max_risky_total + 1e-6


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=20),
    st.lists(st.floats(0.001, 1), min_size=20, max_size=20),
    st.lists(st.tuples(st.integers(0, 2**20 - 1), st.floats(0.01, 1)), min_size=0, max_size=4),
)
def test_shares_keep_every_limit_of_arms_and_groups(slots, each, groups):
    arms = torch.arange(1, len(slots) + 1)
    limit = torch.tensor(each[: len(slots)], dtype=torch.float64)
    masks = [
        Group(torch.tensor([bool(bits >> i & 1) for i in range(len(slots))]), total)
        for bits, total in groups
    ]
    given_ = shares(
        arms, torch.tensor(slots), {}, hz.TunerConfig(), limits=Limits(limit, tuple(masks))
    )
    treated = torch.tensor(given_[1:], dtype=torch.float64)
    assert sum(given_) == pytest.approx(1, abs=1e-9)
    assert bool((treated >= 0).all())
    assert bool((treated <= limit + SLACK).all())
    for group in masks:
        assert float(treated[group.arms].sum()) <= group.total + SLACK


@given(
    st.lists(st.tuples(st.floats(0, 0.1), st.floats(0, 50)), min_size=1, max_size=30),
    st.floats(-1, 10),
)
def test_a_price_keeps_the_budget_and_raises_no_share(arms, most):
    wanted = torch.tensor([share for share, _ in arms], dtype=torch.float64)
    violation = torch.tensor([v for _, v in arms], dtype=torch.float64)
    kept = priced(wanted, violation, most)
    assert bool((kept <= wanted).all())
    assert bool((kept >= 0).all())
    assert float(kept @ violation) <= max(most, 0.0) + 1e-12
    assert torch.equal(kept[violation == 0], wanted[violation == 0])  # nothing to pay for
    if float(wanted @ violation) <= most:
        assert torch.equal(kept, wanted)


BUDGET = {"per_round": 1500.0, "per_day": 9000.0, "users_per_round": 40_000.0}
LIFTS = {"gain": "5%", "guard": 0.05}


def test_a_harm_budget_is_kept_in_every_round_and_day():
    world = GuardrailWorld(5)
    config = hz.TunerConfig(plausible_lift=LIFTS, harm_budget=BUDGET, rounds_per_day=8, **SMALL)
    tuner, plans = play(world, config, rounds=20)
    spent = []
    for plan, _ in plans:
        exposure = tuner.history.plans[plan.round].trace.exposure
        assert exposure.users >= 40_000
        assert exposure.harm == pytest.approx(exposure.violation * exposure.users)
        assert exposure.harm <= 1500 * (1 + 1e-9)
        spent.append(exposure.harm)
        assert math.fsum(spent[-8:]) <= 9000 * (1 + 1e-9)
    assert max(math.fsum(spent[i : i + 8]) for i in range(12)) > 8000  # and used
    assert any(plan.shares[0] < 0.9 for plan, _ in plans)
    # Users that readings count are believed where they are more than the study file says.
    assert tuner.history.plans[19].trace.exposure.users == pytest.approx(50_000, rel=0.01)


def test_expected_harm_is_what_the_posterior_says():
    """Of one guardrail on one metric: E max(0, bound - delta), in closed form."""
    world = GuardrailWorld(6)
    config = hz.TunerConfig(plausible_lift=LIFTS, **SMALL)
    tuner, _ = play(world, config, rounds=7)
    plan = tuner.ask(7)
    mean, var = tuner.posterior(plan.theta[1:])
    normal = torch.distributions.Normal(0.0, 1.0)
    std = var[:, 1].sqrt()
    z = (-0.001 - mean[:, 1]) / std
    expected = std * (z * normal.cdf(z) + normal.log_prob(z).exp())
    average = 100 * float(torch.tensor(plan.shares[1:], dtype=torch.float64) @ expected)
    exposure = tuner.history.plans[7].trace.exposure
    assert exposure.violation == pytest.approx(average, rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"harm_budget": BUDGET}, "needs plausible_lift for ['guard']"),
        ({"harm_budget": {"users_per_round": 10.0}}, "names per_round, per_day, or both"),
        ({"harm_budget": BUDGET | {"per_day": 5.0}}, "a day has at least one round"),
        ({"plausible_lift": {"watch": 0.1}}, "plausible_lift names ['watch']"),
        ({"plausible_lift": {"guard": "five"}}, "a fraction above 0 and up to 1"),
        ({"plausible_lift": {"guard": 5}}, "a fraction above 0 and up to 1"),
        ({"plausible_lift": 0.05}, "maps metrics to"),
        ({"max_untested_share": 0.5, "max_untested_total": 0.1}, "less than one of them may"),
        ({"max_untested_total": 0.0}, "max_untested_total"),
        ({"start_radius": 0.0}, "start_radius"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(hz.ConfigError) as error:
        hz.Tuner(GuardrailWorld(0).problem, hz.TunerConfig(**options))
    assert message in str(error.value)


def test_a_budget_below_the_controls_own_harm_is_refused():
    world = GuardrailWorld(0)
    problem = hz.Problem(
        space=world.problem.space,
        base=world.problem.base,
        metrics=["gain", "guard"],
        objective="gain",
        constraints=[hz.Constraint("guard >= 2%", may_exclude_base=True)],
    )
    budget = {"per_round": 1000.0, "users_per_round": 1000.0}
    with pytest.raises(hz.ConfigError, match=r"below the base's own harm.*breaks.*by 2 points"):
        hz.Tuner(problem, hz.TunerConfig(plausible_lift=LIFTS, harm_budget=budget))
    generous = budget | {"per_round": 2500.0}
    plan = hz.Tuner(problem, hz.TunerConfig(plausible_lift=LIFTS, harm_budget=generous)).ask()
    assert len(plan) > 1


def test_a_configuration_that_does_not_fit_changes_nothing():
    tuner = hz.Tuner(GuardrailWorld(0).problem, hz.TunerConfig(**SMALL))
    num_entries = tuner.history.num_entries
    with pytest.raises(hz.ConfigError, match="plausible_lift names"):
        tuner.study.configure(hz.TunerConfig(plausible_lift={"watch": 0.1}))
    assert tuner.study.sync().num_entries == num_entries


def test_lifts_are_stored_and_read_back():
    config = hz.TunerConfig(plausible_lift={"a": "5%", "b": 0.1}, harm_budget=BUDGET)
    stored = config.model_dump(mode="json")
    assert stored["plausible_lift"] == {"a": 0.05, "b": 0.1}
    assert hz.TunerConfig(**stored) == config


def test_a_plausible_lift_is_the_scale_of_the_prior():
    """Far from all evidence the posterior's deviation is half the lift, whatever was measured."""
    world = GuardrailWorld(2, dims=4)
    deviations = []
    for lift in (0.02, 0.2):
        config = hz.TunerConfig(plausible_lift={"gain": lift, "guard": lift}, **SMALL)
        tuner, _ = play(world, config, rounds=5)
        hyperparameters = tuner.surrogate().hyperparameters
        scale = tuner.surrogate().standardiser.scale
        assert scale.tolist() == pytest.approx([lift / 2 / math.sqrt(1.4)] * 2)
        deviations.append(float((hyperparameters.outputscale.sqrt() * scale).mean()))
    assert deviations[0] < deviations[1]


def distance(problem, theta):
    """How far points lie on the way from the base to the bounds, the farthest parameter's."""
    x, base = problem.space.to_unit(theta), problem.space.to_unit(problem.base_theta)
    room = torch.where(x > base, 1 - base, base)
    return ((x - base).abs() / room).amax(-1)


def test_a_start_near_the_base_goes_further_as_guardrails_hold():
    world = GuardrailWorld(3)
    config = hz.TunerConfig(start="near", start_radius=0.1, **SMALL)
    tuner, plans = play(world, config, rounds=16)
    radii = [tuner.history.plans[plan.round].trace.radius for plan, _ in plans]
    assert radii[:3] == [0.1] * 3  # nothing is known yet
    assert radii == sorted(radii)
    assert radii[-1] > 0.2
    assert all(b <= 1.25 * a + 1e-12 for a, b in pairwise(radii))
    for plan, _ in plans:
        born = [tuner.history.candidates[c] for c in plan.candidate_ids[1:]]
        for entry in born:
            reach = distance(world.problem, torch.tensor([entry.theta], dtype=torch.float64))
            assert float(reach) <= radii[entry.round] + 1e-6
    again = hz.Tuner(world.problem, config, seed=0)
    again.load_state_dict(tuner.state_dict())
    assert again.ask(16) == tuner.ask(16)


def test_a_start_near_the_base_stays_where_nothing_holds():
    """Every step away from the base breaks the guardrail by far."""
    problem = hz.Problem(
        space=hz.SearchSpace([hz.Float("w", 0.0, 1.0)]),
        base={"w": 0.5},
        metrics=["views", "complaints"],
        objective="views",
        constraints=["complaints <= 0.1%"],
    )
    tuner = hz.Tuner(problem, hz.TunerConfig(start="near", **SMALL))
    for _ in range(8):
        plan = tuner.ask()
        off = (plan.theta[:, 0] - 0.5).abs().tolist()
        rows = {"round": [], "candidate": [], "metric": [], "count": [], "mean": [], "var": []}
        for candidate, share, d in zip(plan.candidate_ids, plan.shares, off):
            for metric, mean in (("views", 1.0 + 0.1 * d), ("complaints", 1.0 + 2 * d)):
                values = (plan.round, candidate, metric, 1e6 * share, mean, 1.0)
                for name, value in zip(rows, values):
                    rows[name].append(value)
        tuner.tell(hz.Readings.from_frame(rows))
    assert tuner.history.plans[7].trace.radius == pytest.approx(0.2)


def test_a_space_of_options_alone_starts_with_all_of_them():
    problem = hz.Problem(
        space=hz.SearchSpace([hz.Choice("layout", ["a", "b", "c"])]),
        base={"layout": "b"},
        metrics=["views"],
        objective="views",
    )
    plan = hz.Tuner(problem, hz.TunerConfig(start="near")).ask()
    assert {p["layout"] for p in plan.parameters} == {"a", "b", "c"}
