"""The replay world: what is read from the real streams, and what is laid on top of them."""

import gzip
from functools import cache

import numpy as np
import pytest
import torch

from hyperzero_torch.errors import ConfigError, InputError
from hyperzero_torch.simulate import asos
from hyperzero_torch.simulate.asos import Status
from hyperzero_torch.simulate.replay import METRICS, ReplayWorld
from hyperzero_torch.stats import delta, moments
from hyperzero_torch.study.plan import Plan

NULLS = "329386"  # 33 of its 99 intervals have no variance; empty and negative ones as well
CLEAN = "058875"
LISTING = asos.experiments()
IDS = [experiment.id for experiment in LISTING]
HEADER = (
    "experiment_id,variant_id,metric_id,time_since_start,"
    "count_c,count_t,mean_c,mean_t,variance_c,variance_t"
)


@cache
def world(experiment=None, seed=0, **kwargs):
    return ReplayWorld(experiment, seed=seed, **kwargs)


@cache
def arms_of(w, num_arms):
    space, base = w.problem.space, w.problem.base_theta
    return torch.cat([base[None], space.from_unit(space.sobol(num_arms, seed=1))])


def make_plan(w, round, num_arms=4, control_share=0.3, shares=None):
    """The control and ``num_arms`` Sobol points."""
    theta = arms_of(w, num_arms)
    if shares is None:
        shares = (control_share, *[(1 - control_share) / num_arms] * num_arms)
    return Plan(
        round=round,
        candidate_ids=tuple(range(num_arms + 1)),
        parameters=tuple(w.problem.space.to_parameters(theta)),
        theta=theta,
        slots=(0, *[1] * num_arms),
        shares=tuple(shares),
    )


def rows(deliveries):
    """Every delivered row as (due, round, candidate, metric, count, mean, var)."""
    return [
        (d.due, *row)
        for d in deliveries
        for r in [d.readings]
        for row in zip(r.round, r.candidate, r.metric, r.count, r.mean, r.var)
    ]


# ---- from cumulative records to intervals ------------------------------------------------------


@pytest.mark.parametrize("experiment", IDS)
def test_an_interval_merged_with_what_was_before_is_the_next_record(experiment):
    streams = asos.load(experiment)
    parts = asos.intervals(streams)
    whole = streams.moments
    before = moments.Moments(*(torch.cat([torch.zeros_like(f[:1]), f[:-1]]) for f in whole))
    again = moments.merge(before, parts.moments)
    new = parts.moments.count > 0  # without new users nothing can carry what old ones added
    new &= ~before.m2.isnan()  # what follows a null record is as unknown as the record
    for got, want in zip(again, whole):
        torch.testing.assert_close(got[new], want[new], rtol=1e-9, atol=1e-9, equal_nan=True)


def test_all_intervals_together_are_the_last_record():
    streams = asos.load(CLEAN)
    parts = asos.intervals(streams).moments
    total = moments.Moments(*(f[0] for f in parts))
    for t in range(1, len(streams.days)):
        total = moments.merge(total, moments.Moments(*(f[t] for f in parts)))
    for got, want in zip(total, streams.moments):
        torch.testing.assert_close(got, want[-1], rtol=1e-9, atol=0)


@pytest.mark.parametrize("experiment", IDS)
def test_a_usable_cell_is_sound_and_every_other_has_its_reason(experiment):
    parts = asos.intervals(asos.load(experiment))
    count, mean, var = (f.numpy() for f in (*parts.moments[:2], parts.moments.var))
    sound = (count >= 2) & (mean > 0) & (var > 0) & np.isfinite(var) & np.isfinite(mean)
    np.testing.assert_array_equal(parts.usable.numpy(), sound)
    holds = {
        Status.NO_USERS: count == 0,
        Status.FEWER_USERS: count < 0,
        Status.VAR_NULL: np.isnan(var),
        Status.VAR_NEGATIVE: var < 0,
        Status.MEAN_NOT_POSITIVE: mean <= 0,
    }
    for reason, where in holds.items():
        assert where[parts.status == reason].all()
    assert sum(asos.tally(parts.status).values()) == parts.status.size
    assert (parts.days > 0).all()


def test_the_file_asks_for_care_as_it_is_said_to():
    status = np.concatenate([asos.intervals(asos.load(e)).status.ravel() for e in IDS])
    share = {reason: num / status.size for reason, num in asos.tally(status).items()}
    assert 0.03 < share[Status.VAR_NULL] < 0.07
    assert 0.01 < share[Status.VAR_NEGATIVE] < 0.03
    assert 0.01 < share[Status.NO_USERS] < 0.03


def test_listing_and_steps():
    assert len(LISTING) == 38
    assert sorted(IDS) == IDS
    for experiment in LISTING:
        assert sum(experiment.steps.values()) == experiment.num_intervals
        assert set(experiment.metrics) <= set(METRICS)
    by_id = {experiment.id: experiment for experiment in LISTING}
    assert by_id["df31d1"].metrics == ("metric_1",)  # the others have no variance at all
    assert by_id[NULLS].steps[1.0] > 40
    assert by_id[NULLS].steps[0.5] > 40


def test_the_default_experiment_is_long_mostly_half_daily_and_messy():
    chosen = next(e for e in LISTING if e.id == asos.DEFAULT_EXPERIMENT)
    assert chosen.num_intervals > 200
    assert chosen.steps[0.5] > 0.9 * chosen.num_intervals
    assert chosen.steps[1.0] >= 5
    assert chosen.metrics == METRICS
    status = asos.intervals(asos.load()).status[:, 0]
    for m in range(4):
        tally = asos.tally(status[:, m])
        assert tally[Status.NO_USERS] == 13
        assert tally[Status.VAR_NEGATIVE] >= 4
        assert tally[Status.USABLE] > 190
    assert Status.VAR_NULL in asos.tally(asos.intervals(asos.load(NULLS)).status[:, 0])


def test_interval_moments_are_those_of_the_raw_values(tmp_path):
    rng = np.random.default_rng(0)
    cuts = [0, 40, 41, 41, 90]  # a single user in the second interval, none in the third
    users = {side: rng.gamma(2.0, 3.0, size=90) for side in "ct"}
    lines = [HEADER]
    for day, n in enumerate(cuts[1:], start=1):
        seen = {side: values[:n] for side, values in users.items()}
        pair = [f"{f(seen[side])!r}" for f in (len, mean, var) for side in "ct"]
        lines.append(f"e,1,1,{day / 2},{','.join(pair)}")
    for name, pack in (("a.csv", bytes), ("a.csv.gz", gzip.compress)):
        path = tmp_path / name
        path.write_bytes(pack(("\n".join(lines) + "\n").encode()))
        parts = asos.intervals(asos.load("e", path))
        assert parts.days.tolist() == [0.5] * 4
        assert parts.status[:, 0, 0].tolist() == [
            *(Status.USABLE, Status.ONE_USER, Status.NO_USERS, Status.USABLE)
        ]
        for g, side in enumerate("ct"):
            for t in (0, 3):
                raw = users[side][cuts[t] : cuts[t + 1]]
                got = [float(f[t, g, 0]) for f in (*parts.moments[:2], parts.moments.var)]
                np.testing.assert_allclose(got, [len(raw), mean(raw), var(raw)], rtol=1e-9)


def mean(values):
    return float(np.mean(values))


def var(values):
    return float(np.var(values, ddof=1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "not a file of cumulative A/B tests"),
        (f"{HEADER}\ne,1,1,x,1,1,1,1,1,1\n", "not a file of cumulative A/B tests"),
        (f"{HEADER}\ne,1,1,1,9,9,1,1,1,1\ne,1,2,1,9,9,1,1,1,1\ne,1,2,2,9,9,1,1,1,1\n", "equally"),
        (f"{HEADER}\ne,1,1,1,9,9,1,1,1,1\ne,2,1,1,8,9,1,1,1,1\n", "share their times"),
        (f"{HEADER}\ne,1,1,1,9,9,1,1,1,1\ne,1,1,1,9,9,1,1,1,1\n", "times are not positive"),
        (f"{HEADER}\ne,1,1,1,9,9,1,1,,1\n", "no experiment 'z'"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, text, says):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        asos.load("z", path)
    with pytest.raises(InputError, match="nowhere"):
        asos.load(path=tmp_path / "nowhere.csv")


# ---- the noise ---------------------------------------------------------------------------------


def test_residuals_are_as_heavy_as_measured_elsewhere():
    residuals = asos.residuals()
    assert tuple(residuals) == METRICS
    for values in residuals.values():
        assert len(values) > 2500
        assert np.isfinite(values).all()
        assert abs(np.median(values)) < 1e-12
        assert 1.5 <= values.std() <= 4.0
        assert 1.2 <= asos.robust_std(values) <= 1.7
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0.0


def test_robust_std_is_the_std_of_normal_values_and_shrugs_off_outliers():
    values = np.random.default_rng(0).standard_normal(40_000) * 3 + 5
    assert asos.robust_std(values) == pytest.approx(3, rel=0.03)
    values[:400] = 1e6
    assert asos.robust_std(values) == pytest.approx(3, rel=0.05)


# ---- the surface -------------------------------------------------------------------------------


@pytest.mark.parametrize("num_params", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_guardrail_binds_and_leaves_a_clear_gain(num_params, seed):
    w = world(seed=seed, num_params=num_params)
    space = w.problem.space
    theta = space.from_unit(space.sobol(8192, seed=0))
    truth = w.truth(theta)
    assert truth.delta.abs().max() <= w.max_lift
    free = int(truth.gain.argmax())
    assert truth.violation[free] > 0.005  # the best without the guardrail breaks it widely
    best = w.oracle(8192)
    assert 0.5 * float(truth.gain[free]) < best.gain < 0.97 * float(truth.gain[free])
    assert best.gain > 0.25 * w.max_lift
    base = w.problem.base_theta[None]
    for batch in (base, torch.cat([theta[:1000], base])):
        assert (w.true_delta(batch)[-1] == 0).all()
    at_base = w.truth(base)
    assert at_base.gain == 0
    assert at_base.violation == 0


def test_the_guardrail_binds_at_every_allowed_size_of_lifts():
    for max_lift in (0.01, 0.5):
        w = world(max_lift=max_lift)
        truth = w.truth(w.problem.space.sobol(8192, seed=0))
        assert truth.violation[truth.gain.argmax()] > 0
        assert truth.delta.abs().max() <= max_lift


def test_the_surface_is_smooth_and_seeded():
    theta = world().problem.space.sobol(16, seed=3)
    assert torch.autograd.gradcheck(world().true_delta, theta.requires_grad_())
    same = ReplayWorld(seed=0).true_delta(theta)
    torch.testing.assert_close(world().true_delta(theta), same, rtol=0, atol=0)
    assert (world(seed=1).true_delta(theta) != same).any()


# ---- serving -----------------------------------------------------------------------------------


def test_serving_is_a_function_of_seed_and_round():
    a, b = ReplayWorld(seed=3), ReplayWorld(seed=3)
    plans = [make_plan(a, r) for r in range(40)]
    forwards = [rows(a.serve(p)) for p in plans]
    backwards = [rows(b.serve(p)) for p in reversed(plans)][::-1]
    assert forwards == backwards
    assert forwards != [rows(world(seed=4).serve(p)) for p in plans]


@pytest.mark.parametrize(
    ("experiment", "traffic"), [(None, 0.003), (NULLS, 1.0), (NULLS, 0.003), ("64dc88", 1.0)]
)
def test_what_is_emitted_can_always_be_used(experiment, traffic):
    w = world(experiment, traffic=traffic)
    for r in range(w.num_intervals):
        emitted = rows(w.serve(make_plan(w, r)))
        usable = {METRICS[m] for m in np.flatnonzero(w.control_status[r] == Status.USABLE)}
        assert {row[3] for row in emitted} <= usable
        assert all(due - r in (1, 2) for due, *_ in emitted)
        assert all(row[1] == r for row in emitted)
        assert len({row[1:4] for row in emitted}) == len(emitted)
        assert len({(row[0], row[2]) for row in emitted}) == len({row[2] for row in emitted})
        numbers = np.array([row[4:] for row in emitted], dtype=float).reshape(-1, 3)
        assert np.isfinite(numbers).all()
        assert (numbers[:, 0] >= 2).all()
        assert (numbers[:, 0] == np.floor(numbers[:, 0])).all()
        assert (numbers[:, 1:] > 0).all()


def test_silent_intervals_deliver_nothing_and_the_others_all_arms():
    w = world()
    silent = (w.control_status != Status.USABLE).all(1)
    assert 13 <= silent.sum() < 30
    missing = 0
    for r in range(w.num_intervals):
        deliveries = w.serve(make_plan(w, r))
        assert bool(deliveries) != silent[r]
        missing += 5 * int((w.control_status[r] == Status.USABLE).sum()) - len(rows(deliveries))
    assert missing < 0.01 * 5 * (w.control_status == Status.USABLE).sum()  # noise beyond 100 %


def test_after_the_last_interval_it_starts_over_with_new_noise():
    w = world(CLEAN)
    first, again = (
        {row[2:4]: row[4:] for row in rows(w.serve(make_plan(w, r)))}
        for r in (2, 2 + w.num_intervals)
    )
    assert first.keys() == again.keys()
    for key, (count, mean_, var_) in first.items():
        assert again[key][0] == count
        assert again[key][1] != mean_
        assert again[key][2] == var_


def test_traffic_shares_delay_and_arms_without_users():
    w, busy = world(CLEAN), world(CLEAN, traffic=3.0, delay=5)
    plan = make_plan(w, 4, num_arms=3, shares=(0.5, 0.3, 0.2, 0.0))
    few, many = ({row[2:4]: row for row in rows(v.serve(plan))} for v in (w, busy))
    assert {candidate for candidate, _ in few} == {0, 1, 2}
    total = asos.intervals(asos.load(CLEAN)).moments.count[4, :, 0].sum()
    for key, row in few.items():
        assert row[4] == round(plan.shares[key[0]] * float(total))
        assert abs(many[key][4] - 3 * row[4]) <= 2
        assert many[key][0] - 4 in (5, 6)


def test_served_deltas_are_true_on_average_and_as_noisy_as_the_real_ones():
    # Ample traffic, so that second-order terms of the ratio vanish beside the noise.
    w = world(CLEAN, traffic=30.0)
    plans = [make_plan(w, r, num_arms=1, control_share=0.5) for r in range(15 * w.num_intervals)]
    lift = w.true_delta(plans[0].theta)[1]
    z, precision = {m: [] for m in METRICS}, dict.fromkeys(METRICS, 0.0)
    weighted = dict.fromkeys(METRICS, 0.0)
    for plan in plans:
        cells = {row[2:4]: row[4:] for row in rows(w.serve(plan))}
        for i, metric in enumerate(METRICS):
            if (0, metric) not in cells or (1, metric) not in cells:
                continue
            control, arm = (
                moments.from_sample(*torch.tensor(cells[c, metric], dtype=torch.float64))
                for c in (0, 1)
            )
            got = delta.ratio(arm, control)
            z[metric].append(float((got.mean - lift[i]) / got.var.sqrt()))
            precision[metric] += float(1 / got.var)
            weighted[metric] += float(got.mean / got.var)
    for i, metric in enumerate(METRICS):
        real, num = asos.residuals()[metric], len(z[metric])
        assert num > 300
        assert abs(np.mean(z[metric])) < 4 * real.std() / num**0.5
        assert np.std(z[metric]) == pytest.approx(real.std(), rel=0.35)
        tolerance = 4 * real.std() / precision[metric] ** 0.5
        assert abs(weighted[metric] / precision[metric] - float(lift[i])) < tolerance
        assert tolerance < 0.01  # or the line above would say nothing


# ---- the object --------------------------------------------------------------------------------


def test_the_tuner_is_not_told_the_base_levels():
    w = world()
    assert w.name == "replay"
    assert w.problem.base_levels is None
    assert (w.truth_problem.base_levels > 0).all()
    assert w.problem.space.names == ("w_click", "w_share", "w_follow")


def test_describe_names_what_was_left_out_and_whose_data_it_is():
    text = world().describe()
    for part in (
        *("2c8a04", "246 intervals", "12 h x 234", "1 d x 10", "no new users 13"),
        *("variance negative 36", "CC BY 4.0", "10.17605/OSF.IO/64JSB", "1.27 x"),
    ):
        assert part in text
    assert "variance null 33" in world(NULLS).describe()


def test_unknown_experiments_name_the_known_ones():
    with pytest.raises(InputError, match=r"no experiment 'nope'.*2c8a04"):
        ReplayWorld("nope")
    with pytest.raises(InputError, match="df31d1 has no usable interval of metric_2"):
        ReplayWorld("df31d1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 0.5},
        {"delay": -1},
        {"delay": True},
        {"traffic": 0},
        {"traffic": float("nan")},
        {"num_params": 1},
        {"num_params": 5},
        {"max_lift": 0.001},
        {"max_lift": 0.9},
    ],
)
def test_arguments_outside_their_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ReplayWorld(**wrong)
