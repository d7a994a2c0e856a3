"""``transfer.privacy`` and ``budget``: bounded, noised, accounted for, and honest about it."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.extras import hide
from support.small_study import make, play

import hyperzero_torch as hz
from hyperzero_torch.stats import delta, moments
from hyperzero_torch.study.evidence.bucket import gather
from hyperzero_torch.study.evidence.pooling import Pooling
from hyperzero_torch.transfer import from_bucket
from hyperzero_torch.transfer.sharing.budget import Budget
from hyperzero_torch.transfer.sharing.clipping import GRID
from hyperzero_torch.transfer.sharing.noise import (
    Clip,
    SimulatedNoise,
    collect,
    discrete_gaussian,
    from_moments,
    private_history,
    release,
)

pytest.importorskip("dp_accounting")
pytest.importorskip("opendp")

CLIPS = [Clip(0.0, 4.0), Clip(-1.0, 1.0)]


def nothing(values, scale):
    return values


def users(num, generator, cells=3):
    values = torch.rand(num, 2, generator=generator, dtype=torch.float64) * 6 - 1
    cell = torch.randint(0, cells, (num,), generator=generator)
    return values, cell


# --- contributions ---------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 3))
def test_one_user_more_moves_no_release_farther_than_the_sensitivity(seed, most, metrics):
    generator = torch.Generator().manual_seed(seed)
    clips = [Clip(-1.0, 2.0)] * metrics
    scale = 10.0 ** torch.randint(-3, 4, (1,), generator=generator)
    cells, rows = 6, 12
    values = scale * torch.randn(rows, metrics, generator=generator, dtype=torch.float64)
    user = torch.arange(rows) // 2
    cell = torch.stack([torch.randperm(cells, generator=generator)[:2] for _ in range(rows // 2)])
    extra = min(most + 1, cells)
    new = scale * torch.randn(extra, metrics, generator=generator, dtype=torch.float64)
    where = torch.randperm(cells, generator=generator)[:extra]
    without = collect(values, cell.flatten(), cells, clips, user, 2)
    bounded = without._replace(max_contributions=most)
    alone = collect(new, where, cells, clips, torch.zeros(extra).long(), most)
    moved = torch.cat([alone.count, alone.first, alone.second], 1).double().norm()
    assert float(moved) <= bounded.sensitivity
    assert int(alone.count.sum()) == min(most, extra) * GRID


def test_the_sensitivity_is_reached():
    """No larger than it has to be: a user at the edge of every bound attains it."""
    edge = collect(torch.tensor([[4.0, -1.0]] * 3), torch.arange(3), 3, CLIPS, torch.zeros(3), 3)
    moved = torch.cat([edge.count, edge.first, edge.second], 1).double().norm()
    assert float(moved) == pytest.approx(edge.sensitivity, rel=1e-5)
    per_metric = from_moments(
        moments.from_sample(
            *(torch.tensor([[v, w]]) for v, w in ((1.0, 1.0), (4.0, -1.0), (0.0, 0.0)))
        ),
        CLIPS,
    )
    moved = torch.cat([per_metric.count, per_metric.first, per_metric.second], 1).double().norm()
    assert float(moved) == pytest.approx(per_metric.sensitivity, rel=1e-5)


def test_moments_of_clipped_values_give_the_same_sums():
    generator = torch.Generator().manual_seed(0)
    values, cell = users(500, generator)
    low, high = torch.tensor(CLIPS, dtype=torch.float64).unbind(-1)
    clipped = torch.minimum(torch.maximum(values, low), high)
    direct = collect(values, cell, 4, CLIPS)
    by_moments = from_moments(moments.summarise(clipped, cell, 4), CLIPS)
    for a, b in zip(direct[:3], by_moments[:3]):
        assert torch.allclose(a.double(), b.double(), atol=200)  # half a step for each user
    assert torch.equal(direct.count[:, 0], by_moments.count[:, 0])


def test_without_noise_the_release_is_the_mean_and_variance_of_clipped_values():
    generator = torch.Generator().manual_seed(0)
    values, cell = users(4000, generator)
    low, high = torch.tensor(CLIPS, dtype=torch.float64).unbind(-1)
    clipped = torch.minimum(torch.maximum(values, low), high)
    exact = moments.summarise(clipped, cell, 3)
    released = release(collect(values, cell, 3, CLIPS), Budget(1e9, 1e-6), "x", 1e-3, nothing)
    assert torch.allclose(released.count, exact.count)
    assert torch.allclose(released.mean, exact.mean, atol=1e-5)
    pooled = exact.m2.sum(0) / exact.count.sum(0)
    assert torch.allclose(released.var, pooled.expand_as(released.var), rtol=1e-4)


def test_contributions_are_bounded_by_a_random_choice():
    user = torch.tensor([7] * 5 + [9])
    values = torch.ones(6, 2, dtype=torch.float64)
    seen = torch.zeros(6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        kept = collect(values, torch.arange(6), 6, CLIPS, user, 2, generator).count[:, 0] / GRID
        assert float(kept.sum()) == 3
        seen += kept
    assert float(seen[5]) == 400
    # Each of five cells is kept with probability 2/5: four standard deviations.
    assert float((seen[:5] / 400 - 0.4).abs().max()) < 4 * math.sqrt(0.24 / 400)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.full((2, 2), math.nan)}, "finite"),
        ({"values": torch.ones(2)}, "rows, metrics"),
        ({"cell": torch.tensor([0])}, "expected cell"),
        ({"cell": torch.tensor([0, 5])}, "must lie in"),
        ({"cell": torch.tensor([0, -1])}, "cells >= 0"),
        ({"user": torch.tensor([1])}, "expected cell"),
        ({"user": torch.tensor([1, 1]), "cell": torch.tensor([0, 0])}, "twice in a cell"),
        ({"max_contributions": 0}, "from 1 to"),
        ({"clips": [Clip(0.0, 1.0)]}, "shape"),
        ({"clips": [Clip(1.0, 0.0)] * 2}, "low < high"),
        ({"clips": [Clip(0.0, math.inf)] * 2}, "low < high"),
        ({"clips": {"gain": Clip(0.0, 1.0)}}, "list"),
    ],
)
def test_contributions_that_cannot_be_bounded_are_refused(change, message):
    given = {"values": torch.ones(2, 2), "cell": torch.tensor([0, 1]), "num_cells": 2}
    given |= {"clips": CLIPS}
    with pytest.raises(hz.InputError) as error:
        collect(**(given | change))
    assert message in str(error.value)


def test_moments_of_values_that_were_not_clipped_are_refused():
    for mean, var in ((5.0, 0.0), (-0.1, 0.0), (2.0, 4.5), (0.0, 1.0)):
        given = moments.from_sample(
            torch.full((1, 2), 1e6), torch.tensor([[mean, 0.0]]), torch.tensor([[var, 0.1]])
        )
        with pytest.raises(hz.InputError, match="clip every"):
            from_moments(given, CLIPS)
    edge = moments.from_sample(
        torch.full((1, 2), 10.0), torch.tensor([[2.0, 0.0]]), torch.tensor([[40 / 9, 10 / 9]])
    )
    from_moments(edge, CLIPS)  # half the users at either bound


def test_deltas_cannot_be_made_private():
    deltas = delta.Delta(torch.ones(2, 2), torch.ones(2, 2))
    with pytest.raises(hz.InputError, match="deltas cannot be made private"):
        from_moments(deltas, CLIPS)
    with pytest.raises(hz.InputError, match="deltas cannot be made private"):
        release(deltas, Budget(1.0, 1e-6), "x", 1.0)


# --- noise -----------------------------------------------------------------------------------


def test_the_sampler_has_the_variance_that_is_charged_for():
    """Twice the sampler: OpenDP's own map from scale to privacy loss, and its draws."""
    import opendp.prelude as dp

    scale = 1000.0
    drawn = discrete_gaussian(torch.zeros(20000, dtype=torch.int64), scale).double()
    # A chi-square of 20000 degrees: its relative deviation is 1 %; seven of them, as unseeded.
    assert float(drawn.var()) == pytest.approx(scale**2, rel=0.07)
    assert abs(float(drawn.mean())) < 7 * scale / math.sqrt(20000)
    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    mechanism = dp.m.make_gaussian(domain, dp.l2_distance(T="f64"), scale=scale)
    assert mechanism.map(d_in=10.0) == pytest.approx(10.0**2 / (2 * scale**2))
    assert discrete_gaussian(torch.zeros(0, 3, dtype=torch.int64), 1.0).shape == (0, 3)


def population(cells, generator, num):
    """Users whose values lie within the bounds, with known means."""
    true = torch.linspace(1.5, 2.5, cells, dtype=torch.float64)
    cell = torch.arange(cells).repeat_interleave(num)
    values = true[cell] + (torch.rand(len(cell), generator=generator).double() - 0.5) * 3
    return values.unsqueeze(-1), cell, true


def test_released_deltas_have_the_variance_they_state_and_cover():
    """600 releases of the same users' sums: noise alone; then with new users: both."""
    clips, cells, num = [Clip(0.0, 4.0)], 5, 300
    generator = torch.Generator().manual_seed(1)
    noise, budget = SimulatedNoise(generator), Budget(1e9, 1e-6)
    true = population(cells, generator, num)[2]
    lift = true[1:] / true[0] - 1
    reps = 600
    deltas, stated, plain = [], [], []
    for i in range(reps):
        values, cell, _ = population(cells, generator, num)
        released = release(collect(values, cell, cells, clips), budget, f"{i}", 15.0, noise)
        m = moments.from_sample(released.count, released.mean, released.var)
        d = delta.ratio(moments.Moments(*(f[1:] for f in m)), moments.Moments(*(f[:1] for f in m)))
        deltas.append(d.mean[:, 0])
        stated.append(d.var[:, 0])
        exact = moments.summarise(values, cell, cells)
        plain.append(
            delta.ratio(
                moments.Moments(*(f[1:] for f in exact)), moments.Moments(*(f[:1] for f in exact))
            ).var[:, 0]
        )
    deltas, stated = torch.stack(deltas), torch.stack(stated)
    assert float(torch.stack(plain).mean() / stated.mean()) < 0.5  # mostly noise, so it matters
    # Variance of a variance: sqrt(2 / reps) = 5.8 %; four cells share one control.
    ratio = deltas.var(0) / stated.mean(0)
    assert float((ratio - 1).abs().max()) < 4 * math.sqrt(2 / reps)
    # The same to second order in the noise: 4 standard errors.
    bias = (deltas.mean(0) - lift) / (deltas.std(0) / math.sqrt(reps))
    assert float(bias.abs().max()) < 4
    covered = ((deltas - lift).abs() <= 1.96 * stated.sqrt()).double().mean(0)
    assert float((covered - 0.95).abs().max()) < 4 * math.sqrt(0.95 * 0.05 / reps)


@given(st.floats(1e-4, 1e4))
def test_another_unit_of_the_metric_changes_no_delta(unit):
    values, cell, _ = population(4, torch.Generator().manual_seed(0), 200)
    out = []
    for k in (1.0, unit):
        noise = SimulatedNoise(torch.Generator().manual_seed(3))
        sums = collect(k * values, cell, 4, [Clip(0.0, 4.0 * k)])
        released = release(sums, Budget(1e9, 1e-6), "x", 2.0, noise)
        out.append(
            (released.count, released.mean / k, released.var / k**2, released.noise_var / k**2)
        )
    for a, b in zip(*out):
        assert torch.allclose(a, b, rtol=1e-4)


def test_a_cell_that_drowns_in_noise_says_nothing():
    values = torch.ones(20, 1, dtype=torch.float64)
    sums = collect(values, torch.zeros(20, dtype=torch.long), 2, [Clip(0.0, 2.0)])
    noise = SimulatedNoise(torch.Generator().manual_seed(0))
    released = release(sums, Budget(1e9, 1e-6), "x", 10.0, noise)
    assert released.count.tolist() == [[0.0], [0.0]]
    assert bool(released.noise_var.isinf().all())


def test_an_attacker_who_knows_all_others_wins_no_more_than_was_charged():
    """The best test of one user's presence, on the real sampler's draws: its delta(epsilon)."""
    noise_multiplier, num = 2.0, 30_000
    user = collect(torch.tensor([[4.0]]), torch.zeros(1, dtype=torch.long), 1, CLIPS[:1])
    contribution = torch.cat([user.count, user.first, user.second], 1).double()[0]
    scale = noise_multiplier * user.sensitivity
    drawn = discrete_gaussian(torch.zeros(num, len(contribution)).long(), scale).double()
    along = drawn @ contribution / contribution.norm()  # the likelihood ratio's statistic
    shift = float(contribution.norm())
    for epsilon in (0.1, 0.3):
        cut = shift / 2 + scale**2 * epsilon / shift
        p = float((along + shift > cut).double().mean())
        q = float((along > cut).double().mean())
        advantage = p - math.exp(epsilon) * q
        error = math.sqrt((p * (1 - p) + math.exp(2 * epsilon) * q * (1 - q)) / num)
        claimed = gaussian_delta(epsilon, noise_multiplier, 1)
        assert advantage <= claimed + 6 * error
        assert advantage >= 0.9 * claimed - 6 * error  # and the noise is no larger than was charged
        assert gaussian_delta(epsilon, noise_multiplier / 1.3, 1) > claimed + 12 * error


# --- the ledger ------------------------------------------------------------------------------


def gaussian_delta(epsilon, noise, count):
    """The exact delta of composed Gaussians: Balle and Wang (2018), Theorem 8."""
    mu = math.sqrt(count) / noise
    phi = torch.special.log_ndtr
    a, b = (
        torch.tensor(v, dtype=torch.float64)
        for v in (mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu)
    )
    return float(phi(a).exp() - (epsilon + phi(b)).exp())


def check_epsilon(accountant, noise, count, tight, slack):
    epsilon = Budget(1e9, 1e-6, accountant=accountant).would_be(noise, count)
    assert gaussian_delta(epsilon, noise, count) <= 1e-6 + slack
    assert gaussian_delta(tight * epsilon, noise, count) > 1e-6


@given(st.floats(1.0, 20.0), st.integers(1, 50))
def test_epsilon_is_never_below_the_exact_one_and_not_far_above(noise, count):
    check_epsilon("rdp", noise, count, tight=0.75, slack=1e-12)


@pytest.mark.parametrize(("noise", "count"), [(1.0, 1), (5.0, 24), (20.0, 168)])
def test_the_tighter_accountant_is_all_but_exact(noise, count):
    check_epsilon("pld", noise, count, tight=0.99, slack=2e-9)


def test_a_year_of_hours_is_added_up_as_one_composition():
    budget = Budget(1e9, 1e-6)
    together = budget.would_be(80.0, 300)
    for i in range(300):
        budget.charge(f"hour {i}", 80.0)
    assert budget.spent() == together


def test_releases_add_up_until_nothing_is_left():
    budget = Budget(1.0, 1e-6)
    assert budget.spent() == 0.0
    noise = budget.noise_multiplier_for(4)
    last = 0.0
    for i in range(4):
        spent = budget.charge(f"round {i}", noise)
        assert last < spent <= 1.0
        last = spent
    assert spent == pytest.approx(1.0, rel=1e-3)  # calibrated: nothing is wasted
    assert budget.spent() == spent
    with pytest.raises(hz.BudgetError, match="budget does not suffice"):
        budget.charge("round 4", noise)
    assert len(budget.releases) == 4
    statement = budget.statement()
    assert statement["epsilon"] == spent
    assert statement["mechanisms"] == 4
    json.dumps(statement)


def test_where_nothing_is_left_no_noise_is_enough():
    budget = Budget(1.0, 1e-6)
    budget.charge("all", budget.noise_multiplier_for(1))
    budget.epsilon = budget.spent()  # to the last bit
    with pytest.raises(hz.BudgetError, match="nothing is left"):
        budget.noise_multiplier_for(1)


def test_the_same_release_is_not_paid_twice_and_not_made_twice():
    budget = Budget(10.0, 1e-6)
    budget.charge("round 0", 5.0)
    with pytest.raises(hz.BudgetError, match="released before"):
        budget.charge("round 0", 5.0)


def test_nothing_is_drawn_where_nothing_is_left():
    drawn = []

    def watching(values, scale):
        drawn.append(scale)
        return values

    values, cell, _ = population(2, torch.Generator().manual_seed(0), 50)
    sums = collect(values, cell, 2, [Clip(0.0, 4.0)])
    with pytest.raises(hz.BudgetError, match="budget does not suffice"):
        release(sums, Budget(0.1, 1e-6), "x", 1.0, watching)
    assert drawn == []


def test_a_ledger_outlives_the_process_and_is_not_changed_behind_it(tmp_path):
    path = tmp_path / "ledger.json"
    budget = Budget(2.0, 1e-6, path)
    budget.charge("a", 5.0)
    again = Budget(2.0, 1e-6, path)
    assert again.spent() == budget.spent() > 0
    again.charge("b", 5.0, 3)
    assert [r.what for r in budget.releases] == ["a", "b"]
    assert budget.spent() == again.spent()
    for other in ((3.0, 1e-6, path), (2.0, 1e-7, path), (2.0, 1e-6, path, "pld")):
        with pytest.raises(hz.PackageError, match="values it was created with"):
            Budget(*other)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"times": 3', b'"times": 1'))
    with pytest.raises(hz.PackageError, match="refused"):
        budget.charge("c", 5.0)
    with pytest.raises(hz.ConfigError):
        Budget(2.0, 1e-6, tmp_path / "no" / "ledger.json")


def test_those_who_share_a_ledger_lose_nothing(tmp_path):
    """A lock is of one opening of the folder, so threads meet it as processes do."""
    path = tmp_path / "ledger.json"
    Budget(1e6, 1e-6, path)

    def charges(name):
        budget = Budget(1e6, 1e-6, path)
        return [budget.charge(f"{name}/{i}", 5.0) for i in range(10)]

    with ThreadPoolExecutor(4) as pool:
        spent = [e for charged in pool.map(charges, "abcd") for e in charged]
    assert len(Budget(1e6, 1e-6, path).releases) == 40
    assert len(set(spent)) == 40


@pytest.mark.parametrize(
    "given",
    [(0.0, 1e-6), (-1.0, 1e-6), (1.0, 0.0), (1.0, 1.0), (math.nan, 1e-6), (1.0, "small"),
     (1.0, 1e-6, None, "sum")],
)  # fmt: skip
def test_a_budget_that_cannot_be_is_refused(given):
    with pytest.raises(hz.ConfigError):
        Budget(*given)


def test_charges_that_cannot_be_are_refused():
    budget = Budget(10.0, 1e-6)
    for charge in (("", 1.0), ("x", 0.0), ("x", math.inf), ("x", math.nan), ("x", "1"), (3, 1.0),
                  ("x", 1.0, 0), ("x", 1.0, 1.5), ("x", True)):  # fmt: skip
        with pytest.raises(hz.InputError):
            budget.charge(*charge)
    assert budget.releases == ()


# --- a whole study ---------------------------------------------------------------------------


def clipped_study(rounds=4, users=4000, seed=0):
    """A study whose users' values lie within [0, 20] as its platform clips them."""
    tuner = make()
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        plan = tuner.ask()
        rows = []
        for candidate, theta, share in zip(plan.candidate_ids, plan.theta, plan.shares):
            true = 10 * np.array([1 + 0.1 * float(theta[0]), 1 - 0.02 * float(theta[1])])
            values = np.clip(true + rng.uniform(-5, 5, (round(users * share) + 2, 2)), 0, 20)
            rows.append((candidate, len(values), values.mean(0), values.var(0, ddof=1)))
        ids, count, mean, var = zip(*rows)
        tuner.tell(
            hz.Readings(
                plan.round,
                list(ids),
                torch.tensor(count)[:, None].expand(-1, 2),
                torch.tensor(np.stack(mean)),
                torch.tensor(np.stack(var)),
            )
        )
    return tuner


BOUNDS = {"gain": Clip(0.0, 20.0), "guard": Clip(0.0, 20.0)}


def test_a_studys_private_evidence_carries_its_noise():
    tuner = clipped_study()
    pooling = Pooling("precision", 24)
    own = gather(tuner.history, pooling)
    quiet = private_history(tuner.history, BOUNDS, Budget(1e9, 1e-6), "quiet", 0.01, nothing)
    loud = private_history(
        tuner.history, BOUNDS, Budget(50.0, 1e-6), "loud", 3.0,
        SimulatedNoise(torch.Generator().manual_seed(0)),
    )  # fmt: skip
    near, far = gather(quiet, pooling), gather(loud, pooling)
    known = own.tested
    assert torch.allclose(near.mean[known], own.mean[known], atol=2e-4)
    both = known & far.tested
    assert int(both.sum()) >= 4
    assert bool((far.var[both] > 1.2 * own.var[both]).all())
    # Differences are the noise's, whose variance is what was added.
    z = (far.mean - own.mean)[both] / (far.var - own.var)[both].sqrt()
    assert float(z.abs().max()) < 5
    assert all(p.details == {} for p in loud.plans.values())
    source = from_bucket(tuner.problem, far, "north")
    assert len(source) == int((far.weight > 0).any(-1).sum())
    assert far.theta.shape == own.theta.shape


def test_a_study_is_told_whole_or_not_at_all():
    tuner = clipped_study(rounds=3)
    budget = Budget(1.0, 1e-6)
    with pytest.raises(hz.BudgetError, match="does not suffice for 3 releases"):
        private_history(tuner.history, BOUNDS, budget, "north", 2.0)
    assert budget.releases == ()
    noise = budget.noise_multiplier_for(3)
    private_history(tuner.history, BOUNDS, budget, "north", noise)
    assert [r.what for r in budget.releases] == [f"north/round {t}" for t in range(3)]
    with pytest.raises(hz.InputError, match="missing"):
        private_history(tuner.history, {"gain": Clip(0.0, 20.0)}, budget, "north", noise)
    with pytest.raises(hz.InputError, match="clip every"):
        private_history(
            tuner.history, BOUNDS | {"gain": Clip(0.0, 5.0)}, Budget(9.0, 1e-6), "north", noise
        )
    with pytest.raises(hz.InputError, match="no rounds"):
        private_history(make().history, BOUNDS, Budget(9.0, 1e-6), "north", noise)


def test_a_tuner_runs_on_released_readings():
    tuner, private = clipped_study(rounds=1), make()
    plan, budget = private.ask(), Budget(50.0, 1e-6)
    table = next(iter(tuner.history.tables.values()))
    sums = from_moments(
        moments.from_sample(*(torch.tensor(c) for c in (table.count, table.mean, table.var))),
        [BOUNDS[m] for m in ("gain", "guard")],
    )
    released = release(sums, budget, "round 0", 1.0)
    private.tell(
        hz.Readings(plan.round, plan.candidate_ids, released.count, released.mean, released.var)
    )
    play(private, 1)
    assert private.history.num_messages == 2


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    hide(monkeypatch, "dp_accounting", "opendp")
    for call in (lambda: Budget(1.0, 1e-6), lambda: discrete_gaussian(torch.zeros(1).long(), 1.0)):
        with pytest.raises(hz.MissingExtraError, match=r"hyperzero-torch\[privacy\]"):
            call()
