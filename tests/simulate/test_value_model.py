"""The living recommender: its rhythm, its users, its trade-offs, its logs, and its truth."""

import math
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.simulate import run
from hyperzero_torch.simulate.recommender.world import (
    METRICS,
    Assignment,
    ValueModelWorld,
    one_by_one,
)

CLEAN = {"novelty": 0.0, "bots": 0}
FAR = {"w_click": 0.28, "w_share": 8.2, "w_follow": 9.0, "w_watch": 3.3}
CALM = {"w_click": 0.6, "w_share": 1.3, "w_follow": 36.0, "w_watch": 4.4}
F64 = torch.float64


def everyone(candidate, parameters):
    assignment = Assignment(candidate, parameters)
    return lambda users: [assignment] * len(users)


def halves(world):
    """Users by the last digit of their id: the base, or a theta far from it."""
    arms = (Assignment(0, world.problem.base), Assignment(1, FAR))
    return one_by_one(lambda user: arms[int(user[-1]) % 2])


def totals(served):
    sums = served.events.group_by("metric").aggregate([("value", "sum")])
    return dict(zip(sums["metric"].to_pylist(), sums["value_sum"].to_pylist()))


def per_user(served, metric):
    rows = served.events.filter(pc.equal(served.events["metric"], metric))
    sums = rows.group_by("user").aggregate([("value", "sum")])
    values = dict(zip(sums["user"].to_pylist(), sums["value_sum"].to_pylist()))
    return {user: values.get(user, 0.0) for user in served.exposures["user"].to_pylist()}


@pytest.fixture(scope="module")
def clean():
    return ValueModelWorld(0, **CLEAN)


def test_the_day_has_a_peak_of_about_eight_times_the_trough(clean):
    """Users who come, and their requests, over three days."""
    visits = torch.stack([clean.audience.visits(r) for r in range(72)]).double()
    for by_round in ((visits > 0).sum(1), visits.sum(1)):
        hours = by_round.double().reshape(3, 24).mean(0)
        assert 6 <= float(hours.max() / hours.min()) <= 10
    served = clean.serve_round(5, everyone(0, clean.problem.base))
    assert len(served.exposures) == int((visits[5] > 0).sum())
    assert totals(served)["impressions"] == clean.shown * float(visits[5].sum())


def test_users_come_back_and_stay_themselves(clean):
    hours = [clean.serve_round(r, everyone(0, clean.problem.base)) for r in (10, 11, 35)]
    for metric in ("watch_time", "clicks"):
        first = per_user(hours[0], metric)
        for later in hours[1:]:
            values = per_user(later, metric)
            both = sorted(first.keys() & values.keys())
            assert len(both) > 1000
            pairs = torch.tensor([[first[u] for u in both], [values[u] for u in both]])
            # Independent values of so many users would correlate by less than 0.1 in 2,000 worlds.
            assert float(torch.corrcoef(pairs)[0, 1]) > 0.1


@pytest.mark.parametrize("seed", range(10))
def test_the_guardrail_binds_and_leaves_something_to_gain(seed):
    world = ValueModelWorld(seed, panel=4096)
    theta = world.problem.space.from_unit(world.problem.space.sobol(256, seed=0))
    truth = world.truth(theta)
    hides = METRICS.index("hides")
    best = int(truth.gain.argmax())
    error = world.true_delta_error(theta[best : best + 1])[0]
    assert float(truth.delta[best, hides]) - 4 * float(error[hides]) > 0.01 + 0.01
    assert float(truth.violation[best]) > 0.01
    feasible = torch.where(truth.violation <= 0, truth.gain, -torch.inf)
    at = int(feasible.argmax())
    error = world.true_delta_error(theta[at : at + 1])[0]
    assert float(feasible[at]) - 2 * float(error[0]) > 0.02
    assert float(truth.gain[best]) > float(feasible[at])
    base = world.truth(world.problem.base_theta.unsqueeze(0))
    assert float(base.delta.abs().max()) == 0.0
    assert float(base.violation) == 0.0


def test_the_oracle_is_feasible_and_better_than_the_points_around():
    world = ValueModelWorld(0, panel=4096)
    oracle = world.oracle(128)
    truth = world.truth(oracle.theta.unsqueeze(0))
    assert float(truth.gain) == oracle.gain > 0.05
    assert float(truth.violation) == 0.0
    theta = world.problem.space.from_unit(world.problem.space.sobol(128, seed=7))
    others = world.truth(theta)
    assert oracle.gain >= float(others.gain[others.violation <= 0].max()) - 0.002


def test_true_deltas_agree_with_long_averages():
    """Twelve hours in which everybody is served the same, against the expectation."""
    clean, rounds = ValueModelWorld(0, num_users=5_000, **CLEAN), range(12)
    thetas = [clean.problem.base, FAR, CALM]
    sums = torch.tensor(
        [
            [[totals(clean.serve_round(r, everyone(i, theta)))[m] for m in METRICS] for r in rounds]
            for i, theta in enumerate(thetas)
        ],
        dtype=F64,
    )
    theta = torch.stack([clean.problem.space.theta(t) for t in thetas[1:]])
    expected, panel_error = clean.true_delta(theta), clean.true_delta_error(theta)
    assert float(panel_error[:, 0].max()) < 0.003
    for i in (1, 2):
        ratio = sums[i].sum(0) / sums[0].sum(0)
        left = sums[i] - ratio * sums[0]  # the rounds' requests are independent
        error = left.std(0) * math.sqrt(len(rounds)) / sums[0].sum(0)
        z = (ratio - 1 - expected[i - 1]) / (error.square() + panel_error[i - 1].square()).sqrt()
        assert float(z.abs().max()) < 4.5
        # and the comparison is sharp: the lifts are many errors away from nothing
        assert float((expected[i - 1] / error).abs().max()) > 20


def test_a_larger_panel_gives_the_same_within_the_errors():
    theta = torch.stack([ValueModelWorld(3).problem.space.theta(t) for t in (FAR, CALM)])
    small, large = ValueModelWorld(3, panel=2000), ValueModelWorld(3, panel=40_000)
    error = small.true_delta_error(theta).square() + large.true_delta_error(theta).square()
    z = (small.true_delta(theta) - large.true_delta(theta)) / error.sqrt()
    assert float(z.abs().max()) < 4.5
    assert small.true_delta(theta[:0]).shape == small.true_delta_error(theta[:0]).shape == (0, 5)


def test_novelty_pleases_at_first_and_fades_with_the_hours_of_being_served():
    fresh, known = (
        ValueModelWorld(1, num_users=8000, bots=0, novelty=n, novelty_hours=2.0) for n in (0.1, 0.0)
    )
    space = fresh.problem.space
    step = space.to_unit(space.theta(FAR)) - space.to_unit(fresh.problem.base_theta)
    noticed = 1 - math.exp(-float(step.square().mean().sqrt()) / 0.1)
    for age, round_ in enumerate(range(3, 13)):
        new, old = (
            totals(world.serve_round(round_, everyone(1, FAR)))["clicks"]
            for world in (fresh, known)
        )
        expected = 0.1 * noticed * math.exp(-age / 2)
        # The same luck on both sides, so only the clicks that are added vary: Poisson. And what
        # is sure to be clicked cannot be clicked more, which takes up to a quarter.
        noise = 5 * math.sqrt(expected / old)
        assert 0.75 * expected - noise <= new / old - 1 <= expected + noise
    base = [totals(w.serve_round(20, everyone(0, w.problem.base))) for w in (fresh, known)]
    assert base[0] == base[1]
    theta = fresh.problem.space.theta(FAR).unsqueeze(0)
    assert torch.equal(fresh.true_delta(theta), known.true_delta(theta))


def test_drift_moves_the_optimum():
    world, still = (ValueModelWorld(2, panel=4096, drift=d) for d in (0.005, 0.0))
    theta = world.problem.space.from_unit(world.problem.space.sobol(256, seed=0))
    assert torch.equal(world.true_delta(theta[:4]), still.true_delta(theta[:4], 200))
    now, later = world.truth(theta, 0), world.truth(theta, 200)
    best_now, best_later = (
        int(torch.where(t.violation <= 0, t.gain, -torch.inf).argmax()) for t in (now, later)
    )
    assert best_now != best_later
    # What was best breaks a guardrail now, by far more than the panel's error.
    error = world.true_delta_error(theta[best_now : best_now + 1], 200)
    assert float(later.violation[best_now]) > 4 * float(error.max())
    assert float(later.gain[best_later]) > 0
    users = everyone(0, world.problem.base)
    assert world.serve_round(0, users).events.equals(still.serve_round(0, users).events)
    assert not world.serve_round(200, users).events.equals(still.serve_round(200, users).events)


def test_late_arrivals_partition_the_events(tmp_path):
    world = ValueModelWorld(4, num_users=3000, flips=0.02)
    served = [world.serve_round(12, halves(world))]
    events = served[0].events
    late = pc.subtract(events["arrived"], events["round"]).to_numpy()
    shares = pc.equal(events["metric"], "shares").to_numpy()
    assert set(late[shares]) == set(range(1, 7))
    assert set(late[~shares]) == {0, 1}
    num = int((~shares).sum())
    assert late[~shares].mean() == pytest.approx(0.03, abs=5 * math.sqrt(0.03 * 0.97 / num))

    written = world.write(tmp_path)
    assert [p.parent.name for p in written] == ["events", "exposures"]
    for round_ in range(13, 19):
        served.append(world.serve_round(round_, halves(world)))
        written += world.write(tmp_path)
    assert world.write(tmp_path) == []
    written += world.write(tmp_path, arrived_by=30)
    assert len(set(written)) == len(written) == len(list(tmp_path.rglob("*.*")))
    for each in served:
        stem = f"round-{each.round:06d}"
        paths = sorted((tmp_path / "events").glob(f"{stem}-*.parquet"))
        parts = {path: pq.read_table(path) for path in paths}
        for path, part in parts.items():
            assert pc.unique(part["arrived"]).to_pylist() == [int(path.stem[-6:])]
        order = [(c, "ascending") for c in each.events.column_names]
        together = pa.concat_tables(parts.values())
        assert together.sort_by(order).equals(each.events.sort_by(order))
        exposures = pq.read_table(tmp_path / "exposures" / f"{stem}.parquet")
        assert exposures.equals(each.exposures)


def test_a_log_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    world = ValueModelWorld(4, num_users=300)
    served = world.serve_round(0, halves(world))
    (tmp_path / "file").write_text("")
    with pytest.raises(hz.ConfigError, match="cannot be written"):
        served.write(tmp_path / "file")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(hz.ConfigError, match="No space left"):
            served.write(tmp_path / "log")
    assert [p for p in (tmp_path / "log").rglob("*") if p.is_file()] == []
    first = served.write(tmp_path / "log", arrived_by=0)
    assert [p.name for p in first] == [
        "round-000000-arrived-000000.parquet",
        "round-000000.parquet",
    ]
    assert len(served.write(tmp_path / "log")) == 6


def test_bots_click_thousands_of_times_in_about_every_second_round():
    world = ValueModelWorld(5, num_users=500, bots=3)
    bots = []
    for round_ in range(40):
        served = world.serve_round(round_, everyone(0, world.problem.base))
        clicks = per_user(served, "clicks")
        bots.append({user for user, num in clicks.items() if num >= 2000})
        assert max(v for u, v in clicks.items() if u not in bots[-1]) < 100
    assert len(set().union(*bots)) == 3
    assert abs(sum(map(len, bots)) / 120 - 0.5) < 4 * math.sqrt(0.25 / 120)
    nobody = ValueModelWorld(5, num_users=500, bots=0)
    served = nobody.serve_round(0, everyone(0, nobody.problem.base))
    assert max(per_user(served, "clicks").values()) < 100


def test_flipped_users_are_exposed_to_two_arms():
    world = ValueModelWorld(6, num_users=8000, flips=0.2, bots=0)
    served = world.serve_round(3, halves(world))
    exposures = served.exposures.to_pandas()
    arms = exposures.groupby("user").candidate.nunique()
    assert set(arms) == {1, 2}
    assert not exposures.duplicated().any()
    # Half of those who flip meet the arm that they have already.
    assert (arms == 2).mean() == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / len(arms)))
    plain = ValueModelWorld(6, num_users=8000, bots=0).serve_round(3, halves(world))
    assert len(plain.exposures) == len(arms)
    # They see the other arm's feed in the later half of their visit, and nobody else does.
    before, after = per_user(plain, "watch_time"), per_user(served, "watch_time")
    changed = {user for user, value in after.items() if value != before[user]}
    assert changed
    assert changed <= set(arms.index[arms == 2])


def test_the_same_round_and_assignment_give_the_same_tables():
    one, two, other = (ValueModelWorld(s, num_users=2000, flips=0.1) for s in (7, 7, 8))
    first = one.serve_round(4, halves(one))
    for again in (one.serve_round(4, halves(one)), two.serve_round(4, halves(two))):
        assert again.exposures.equals(first.exposures)
        assert again.events.equals(first.events)
    assert not one.serve_round(5, halves(one)).events.equals(first.events)
    assert not other.serve_round(4, halves(other)).events.equals(first.events)
    assert two.serve_round(4, halves(two)).events.equals(first.events)
    assert str(first.exposures.schema) == "user: string\nround: int64\ncandidate: int64"
    assert str(first.events.schema) == (
        "user: string\nround: int64\nmetric: string\nvalue: double\narrived: int64"
    )


SMALL = ValueModelWorld(9, num_users=300, num_items=60, slate=20, shown=4, panel=100)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    round_=st.integers(0, 10_000),
    picks=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
)
def test_any_assignment_is_served_and_logged_as_it_is(round_, picks, seed):
    space = SMALL.problem.space
    theta = space.from_unit(space.uniform(5, torch.Generator().manual_seed(seed)))
    arms = [Assignment(10 * i, p) for i, p in enumerate(space.to_parameters(theta))]
    asked = {}

    def assign(users):
        asked.update({user: arms[picks[i % len(picks)]] for i, user in enumerate(users)})
        return [asked[user] for user in users]

    served = SMALL.serve_round(round_, assign)
    exposures = dict(
        zip(served.exposures["user"].to_pylist(), served.exposures["candidate"].to_pylist())
    )
    assert exposures == {user: arm.candidate for user, arm in asked.items()}
    assert len(exposures) == len(served.exposures) <= 300
    assert set(served.events["user"].to_pylist()) <= exposures.keys()
    assert set(served.events["metric"].to_pylist()) <= {*METRICS, "impressions"}
    assert pc.all(pc.greater_equal(served.events["value"], 0)).as_py() is not False
    sums = totals(served)
    assert sums.get("clicks", 0) <= sums["impressions"]
    assert set(served.events["round"].to_pylist()) <= {round_}


def test_ctr_is_derivable_and_falls_where_clicks_weigh_less(clean):
    served = [totals(clean.serve_round(15, everyone(1, t))) for t in (clean.problem.base, FAR)]
    ctr = [s["clicks"] / s["impressions"] for s in served]
    assert 0.05 < ctr[1] < ctr[0] < 0.5
    assert served[1]["watch_time"] > served[0]["watch_time"]
    assert served[1]["hides"] > served[0]["hides"]


BASE = SMALL.problem.base


@pytest.mark.parametrize(
    ("assign", "error", "match"),
    [
        (lambda users: None, hz.InputError, "got NoneType"),
        (lambda users: "x" * len(users), hz.InputError, "got str"),
        (lambda users: [], hz.InputError, "one Assignment for each of the"),
        (lambda users: [3] * len(users), hz.InputError, "got 3"),
        (lambda users: [(True, BASE)] * len(users), hz.InputError, "True"),
        (lambda users: [(-1, BASE)] * len(users), hz.InputError, "-1"),
        (lambda users: [(0, None)] * len(users), hz.InputError, "None"),
        (lambda users: [(0, {"w_click": 1.0})] * len(users), hz.SpaceError, "candidate 0"),
        (lambda users: [(4, BASE | {"w_click": 9.0})] * len(users), hz.SpaceError, "candidate 4"),
        (
            lambda users: [(1, BASE | {"w_click": i % 2}) for i in range(len(users))],
            hz.InputError,
            "two thetas",
        ),
    ],
)
def test_assignments_that_cannot_be_are_refused(assign, error, match):
    with pytest.raises(error, match=match):
        SMALL.serve_round(12, assign)


@pytest.mark.parametrize("round_", [-1, 1.5, True, "3", None])
def test_rounds_that_cannot_be_are_refused(round_):
    with pytest.raises(hz.InputError, match="whole number"):
        SMALL.serve_round(round_, everyone(0, BASE))


WRONG = [
    ("seed", -1), ("num_users", 1), ("num_items", 1), ("slate", 1), ("shown", 0), ("visits", 0.9),
    ("delay", -1), ("drift", -0.1), ("novelty", -0.1), ("novelty_hours", 0), ("bots", -1),
    ("flips", 1.5), ("panel", 10),
]  # fmt: skip


@given(st.sampled_from(WRONG), st.sampled_from(["given", math.nan, True, None, "7", []]))
def test_arguments_outside_their_range_are_refused(wrong, instead):
    name, value = wrong
    with pytest.raises(hz.ConfigError, match=name):
        ValueModelWorld(
            **{name: value if isinstance(instead, str) and instead == "given" else instead}
        )


def test_without_pyarrow_plans_are_served_and_logs_are_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(hz.MissingExtraError, match="pyarrow"):
        SMALL.serve_round(0, everyone(0, BASE))
    assert SMALL.serve(hz.Tuner(SMALL.problem).ask())


def test_a_plan_is_reported_without_shares_first_and_whole_six_hours_later():
    world = ValueModelWorld(0, num_users=4000, delay=2)
    plan = hz.Tuner(world.problem, hz.TunerConfig(initial_candidates=16, max_arms=8)).ask()
    first, whole = world.serve(plan)
    assert (first.due, whole.due) == (plan.round + 3, plan.round + 9)
    assert set(first.readings.metric) == set(METRICS) - {"shares"}
    assert set(whole.readings.metric) == set(METRICS)
    assert (set(first.readings.revision), set(whole.readings.revision)) == ({0}, {1})
    users = int((world.audience.visits(plan.round) > 0).sum())
    assert sum(whole.readings.count) == users * len(METRICS)
    early, late = (
        sum(n * x for m, n, x in zip(r.metric, r.count, r.mean) if m == "clicks")
        for r in (first.readings, whole.readings)
    )
    assert 0.95 < early / late < 0.99
    again = world.serve(plan)
    assert again[1].readings.mean.tolist() == whole.readings.mean.tolist()


def test_readings_of_a_plan_are_those_of_the_tables():
    """The same users in the same arms, through the tables and through the world's own sums."""
    world = ValueModelWorld(0, num_users=4000, **CLEAN)
    plan = hz.Tuner(world.problem, hz.TunerConfig(initial_candidates=9, max_arms=3)).ask()
    readings = world.serve(plan)[1].readings
    rows = zip(readings.candidate, readings.metric, readings.count, readings.mean, readings.var)
    reported = {(c, m): (n, x, v) for c, m, n, x, v in rows}
    generator = hz.runtime.randomness.random(0, plan.round, "arms", torch.device("cpu"))
    draw = torch.rand(4000, dtype=F64, generator=generator).tolist()
    edges = torch.tensor(plan.shares, dtype=F64).cumsum(0).tolist()
    arms = [Assignment(c, p) for c, p in zip(plan.candidate_ids, plan.parameters)]

    def arm(user):
        return arms[min(sum(edge <= draw[int(user[1:])] for edge in edges), len(arms) - 1)]

    served = world.serve_round(plan.round, one_by_one(arm))
    for metric in METRICS:
        by_arm = {}
        for user, value in per_user(served, metric).items():
            by_arm.setdefault(arm(user).candidate, []).append(value)
        for candidate, values in by_arm.items():
            values = torch.tensor(values, dtype=F64)
            count, mean, var = reported[candidate, metric]
            assert count == len(values)
            assert mean == pytest.approx(float(values.mean()), rel=1e-9)
            assert var == pytest.approx(float(values.var()), rel=1e-9)


@pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")
def test_the_loop_runs_on_it():
    world = ValueModelWorld(1, panel=2048)
    config = hz.TunerConfig(num_draws=60, num_samples=128, initial_candidates=12, max_arms=8)
    tuner = hz.Tuner(world.problem, config, seed=1)
    records = list(run(tuner, world, 9))
    assert [r.round for r in records] == list(range(9))
    assert records[-1].num_arms >= 1
    assert all(math.isfinite(r.gain) and r.exposed_violation >= 0 for r in records)
    theta = world.problem.space.from_unit(world.problem.space.sobol(32, seed=3))
    mean, var = tuner.posterior(theta)
    true = world.true_delta(theta)
    inside = ((mean - true).abs() <= 4 * var.sqrt() + 0.02)[:, 0]
    assert float(inside.double().mean()) > 0.8


@pytest.mark.parametrize("users", [2, 40])
def test_tiny_worlds_are_worlds(users):
    world = ValueModelWorld(0, num_users=users, num_items=2, slate=2, shown=2, panel=100)
    tuner = hz.Tuner(world.problem, hz.TunerConfig(initial_candidates=4, max_arms=2))
    for round_ in range(0, 24, 4):
        world.serve_round(round_, everyone(0, world.problem.base))
        for delivery in world.serve(tuner.ask(round_)):
            tuner.tell(delivery.readings)
