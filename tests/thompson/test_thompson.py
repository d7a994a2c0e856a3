"""Laws of Thompson sampling: win probabilities in closed form, and proposals near the truth.

Monte Carlo tolerances are five standard errors of the number of draws.
"""

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.stats import norm
from support.tensors import f64, gen, rand, tensor
from torch import nn

from hyperzero_torch.errors import ShapeError
from hyperzero_torch.problem.problem import Constraint, Outcome, Problem
from hyperzero_torch.problem.space import Choice, Float, Int, SearchSpace
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.surrogate import Hyperparameters, Paths, Posterior, Standardiser, Surrogate
from hyperzero_torch.thompson import propose, select, select_paths
from hyperzero_torch.thompson import select as select_function
from hyperzero_torch.thompson.propose import best_points
from hyperzero_torch.thompson.winners import best_of, scaled_violation

law = settings(deadline=None, max_examples=25)
K = 40_000


SPACE = SearchSpace([Float("u", 0.0, 1.0), Float("v", 0.0, 1.0)])


def problem(objective="a", constraints=(), metrics=("a", "b"), space=SPACE, base=None):
    return Problem(space, base or {"u": 0.5, "v": 0.5}, metrics, objective, constraints)


def close(frequency, probability, num=K):
    """Whether a frequency of ``num`` independent draws agrees with a probability."""
    error = math.sqrt(max(probability * (1 - probability), 1 / num) / num)
    return abs(float(frequency) - probability) < 5 * error


def phi(z):
    return float(norm.cdf(z))


def column(values, other=0.0):
    """Deltas of metric a, with ``other`` for metric b, ``(candidates, 2)``."""
    return torch.stack([tensor(values), torch.full((len(values),), other, dtype=f64)], dim=-1)


# --- select: closed forms -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "vars_"),
    [((0.3, 0.1), (0.04, 0.25)), ((0.0, 0.0), (1.0, 1e-6)), ((1.0, 0.9), (0, 0.01))],
)
def test_two_candidates_win_with_the_probability_of_their_difference(means, vars_):
    s = select(column(means), column(vars_), problem(), K, gen(1))
    want = phi((means[0] - means[1]) / math.sqrt(sum(vars_)))
    assert close(s.counts[0] / K, want)
    assert close(s.counts[1] / K, 1 - want)
    assert int(s.num_infeasible) == 0
    assert s.prob_feasible.tolist() == [1.0, 1.0]


def test_three_alike_win_a_third_each():
    s = select(column([0.1] * 3), column([0.5] * 3), problem(), K, gen(2))
    assert all(close(c / K, 1 / 3) for c in s.counts)


def test_a_wide_candidate_wins_more_than_its_mean_deserves():
    """The exact probability of the best of three, by one integral."""
    means, stds = [0.0, 0.2, 0.1], [1.0, 0.1, 0.3]
    s = select(column(means), column([t**2 for t in stds]), problem(), K, gen(3))
    for i in range(3):
        others = [j for j in range(3) if j != i]

        def density(z, i=i, others=others):
            below = math.prod(phi((z - means[j]) / stds[j]) for j in others)
            return norm.pdf(z, means[i], stds[i]) * below

        want, _ = integrate.quad(density, -6, 6, points=[0.0, 0.1, 0.2], limit=200)
        assert close(s.counts[i] / K, want)


@pytest.mark.parametrize("centre", [0.1, -0.2, -1.0])
def test_one_independent_constraint_in_closed_form(centre):
    """Both feasible: the objective decides; one: it wins; none: the smaller violation."""
    m, v = (0.2, 0.0), (0.09, 0.16)
    c, w = (centre, centre + 0.1), (0.04, 0.25)
    mean, var = tensor([[m[0], c[0]], [m[1], c[1]]]), tensor([[v[0], w[0]], [v[1], w[1]]])
    bound = -0.1
    s = select(mean, var, problem(constraints=[f"b >= {bound}"]), K, gen(4))
    p = [phi((c[i] - bound) / math.sqrt(w[i])) for i in range(2)]
    better = phi((m[0] - m[1]) / math.sqrt(sum(v)))
    sd = [math.sqrt(t) for t in w]

    def first_closer(z):  # z: the first one's slack, below 0, with the other's still below it
        return norm.pdf(z, c[0] - bound, sd[0]) * phi((z - c[1] + bound) / sd[1])

    fallback, _ = integrate.quad(first_closer, -8, 0, limit=200)
    want = p[0] * p[1] * better + p[0] * (1 - p[1]) + fallback
    assert close(s.counts[0] / K, want)
    assert close(s.prob_feasible[0], p[0])
    assert close(s.prob_feasible[1], p[1])
    assert close(s.num_infeasible / K, (1 - p[0]) * (1 - p[1]))
    assert s.prob_feasible.dtype == f64


# --- select: laws ---------------------------------------------------------------------------


@law
@given(seed=st.integers(0, 999), candidates=st.integers(1, 6), num=st.integers(1, 60))
def test_counts_are_the_winners_counted(seed, candidates, num):
    mean, var = rand(candidates, 2, seed=seed) - 0.5, rand(candidates, 2, seed=seed + 1)
    p = problem(constraints=["b >= -10%", "a <= 30%"])
    s = select(mean, var, p, num, gen(seed))
    assert s.winners.shape == (num,)
    assert s.counts.equal(torch.bincount(s.winners, minlength=candidates))
    assert int(s.counts.sum()) == num
    assert 0 <= int(s.num_infeasible) <= num
    assert bool(((s.prob_feasible >= 0) & (s.prob_feasible <= 1)).all())
    again = select(mean, var, p, num, gen(seed))
    assert all(a.equal(b) for a, b in zip(s, again))


def test_without_variance_the_best_feasible_wins_every_draw():
    mean = tensor([[0.5, -0.3], [0.2, 0.0], [0.3, 0.1], [0.1, 0.4]])
    s = select(mean, torch.zeros(4, 2, dtype=f64), problem(constraints=["b >= -10%"]), 50, gen())
    assert s.counts.tolist() == [0, 0, 50, 0]
    assert s.prob_feasible.tolist() == [0.0, 1.0, 1.0, 1.0]
    assert int(s.num_infeasible) == 0


def test_without_variance_and_without_a_feasible_one_the_least_violation_wins():
    mean = tensor([[0.9, -0.5], [0.1, -0.2], [0.5, -0.3]])
    s = select(mean, torch.zeros(3, 2, dtype=f64), problem(constraints=["b >= -10%"]), 50, gen())
    assert s.counts.tolist() == [0, 50, 0]
    assert int(s.num_infeasible) == 50
    assert s.prob_feasible.tolist() == [0.0, 0.0, 0.0]


class Fixed(nn.Module):
    """A float32 objective or constraint value per candidate, whatever the deltas."""

    def __init__(self, values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, delta):
        if delta.shape[-2] != len(self.values):  # the problem's own probe
            return delta[..., 0] * self.values[0]
        return delta[..., 0] * 0 + self.values


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("utility", "slack", "winner", "infeasible"),
    [
        ([0.0, 1.0, 2.0], [1, 1, 1], 2, 0),
        ([0.0, NAN, -5.0], [1, 1, 1], 0, 0),  # NaN never wins a feasible draw
        ([NAN, NAN, -5.0], [1, 1, 1], 2, 0),
        ([NAN, NAN, -5.0], [1, 1, -1], 0, 1),  # nobody is feasible and known: least violation
        ([0.0, 9.0, 1.0], [1, NAN, 1], 2, 0),  # NaN slack is infeasible
        ([0.0, 9.0, 1.0], [NAN, NAN, -7], 2, 1),  # and violates more than any number
        ([9.0, 0.0, 1.0], [-1, 0, -1], 1, 0),  # a slack of exactly 0 is feasible
        ([9.0, -INF, 9.0], [-1, 1, -1], 1, 0),  # worth -inf and feasible, before infeasible
        ([9.0, INF, 0.0], [1, 1, 1], 1, 0),
        ([9.0, 0.0, 0.0], [-INF, -1, -2], 1, 1),
    ],
)
def test_who_wins_where_values_are_missing(utility, slack, winner, infeasible):
    outcome = Outcome(tensor([utility]), tensor([slack]).unsqueeze(-1))
    best = best_of(outcome)
    assert best.winner.tolist() == [winner]
    assert best.feasible.tolist() == [not infeasible]
    if not infeasible:
        assert float(best.score) == utility[winner]
    p = problem(
        Fixed(utility),
        [Constraint(Fixed([float(s) for s in slack]), at_least=0.0, may_exclude_base=True)],
    )
    zero = torch.zeros(3, 2, dtype=f64)
    s = select(zero, zero, p, 7, gen())
    assert s.counts[winner] == 7
    assert int(s.num_infeasible) == 7 * infeasible


@pytest.mark.parametrize("constraints", [[], ["b >= 0%"]])
def test_objectives_that_are_all_nan_still_give_winners(constraints):
    zero = torch.zeros(3, 2, dtype=f64)
    s = select(zero, zero + 1, problem(lambda d: d[..., 0] * NAN, constraints), 20, gen())
    assert int(s.counts.sum()) == 20
    assert int(s.num_infeasible) == 20
    assert bool(((s.winners >= 0) & (s.winners < 3)).all())


def test_unknown_candidates_never_win_against_known_ones():
    """NaN evidence (nothing known yet) beside a candidate that violates: the known one wins."""
    mean, var = tensor([[NAN, NAN], [0.1, -0.5]]), tensor([[NAN, NAN], [0.01, 0.01]])
    s = select(mean, var, problem(constraints=["b >= 0%"]), 200, gen())
    assert s.counts.tolist() == [0, 200]
    assert float(s.prob_feasible[0]) == 0.0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        nn.init.constant_(self.linear.weight, 1.0)
        self.seen = []

    def forward(self, delta):
        self.seen.append((delta.dtype, torch.is_grad_enabled()))
        return self.linear(delta).squeeze(-1)


def test_a_float32_module_is_an_objective():
    """Its utility is a + b: variances add."""
    net = Net()
    mean, var = tensor([[0.1, 0.2], [0.0, 0.1]]), tensor([[0.04, 0.01], [0.09, 0.02]])
    s = select(mean, var, problem(net), K, gen(5))
    assert close(s.counts[0] / K, phi(0.2 / math.sqrt(0.16)))
    assert net.seen[-1] == (torch.float32, False)  # its own dtype, and no graph is kept


@law
@given(
    seed=st.integers(0, 999), shift=st.sampled_from([-3.0, 0.5]), scale=st.sampled_from([0.25, 8])
)
def test_only_the_order_of_the_objective_counts(seed, shift, scale):
    mean, var = rand(5, 2, seed=seed) - 0.5, rand(5, 2, seed=seed + 1)
    constraints = ["b >= -20%"]
    s = select(mean, var, problem("a", constraints), 64, gen(seed))
    t = select(mean, var, problem(lambda d: d[..., 0] * scale + shift, constraints), 64, gen(seed))
    assert s.winners.equal(t.winners)


@law
@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-6, 1e6]))
def test_the_unit_of_a_constraint_does_not_matter(seed, scale):
    """Nobody is feasible, two constraints pull apart, one of them is in another unit."""
    mean = -1 - rand(6, 3, seed=seed)
    var = 0.3 * rand(6, 3, seed=seed + 1)
    factor = tensor([1.0, scale, 1.0])

    def run(factor):
        f = float(factor[1])
        p = problem(
            "a",
            [Constraint(lambda d: d[..., 1], at_least=-0.1 * f), "c >= -10%"],
            metrics=["a", "b", "c"],
        )
        return select(mean * factor, var * factor.square(), p, 80, gen(seed))

    s, t = run(torch.ones(3, dtype=f64)), run(factor)
    assert int(s.num_infeasible) > 40
    assert s.winners.equal(t.winners)
    assert s.prob_feasible.equal(t.prob_feasible)


def test_violations_add_up_in_units_of_each_constraints_spread():
    # Constraint one spreads over 100s, two over 0.01s; in spreads, the first point is closest.
    slack = tensor([[[-100.0, -0.02], [-300.0, -0.01], [-200.0, -0.03]]])
    std = slack.std(dim=(0, 1), correction=0)
    want = -slack[..., 0] / std[0] - slack[..., 1] / std[1]
    torch.testing.assert_close(scaled_violation(slack), want)
    assert best_of(Outcome(torch.zeros(1, 3, dtype=f64), slack)).winner.tolist() == [0]


@pytest.mark.parametrize("size", [1e-9, 0.1, 1e9])
def test_a_constraint_that_all_violate_alike_decides_nothing(size):
    """The standard deviation of a constant is rounding, not a spread: it must not drown others."""
    points = 1001
    varying = -1 - rand(points, seed=6)
    slack = torch.stack([torch.full((points,), -size, dtype=f64), varying], dim=-1).expand(
        7, -1, -1
    )
    best = best_of(Outcome(torch.zeros(7, points, dtype=f64), slack))
    assert best.winner.tolist() == [int(varying.argmax())] * 7
    assert float(scaled_violation(slack[..., :1]).max()) == pytest.approx(1.0)


def test_draws_are_tiled_within_their_bound(monkeypatch):
    mean = tensor([[0.5, -0.3], [0.2, 0.0], [0.3, 0.1]])
    seen = []

    def objective(delta):
        seen.append(delta.numel())
        return delta[..., 0]

    p = problem(objective, ["b >= -10%"])
    seen.clear()  # the problem has tried its objective on values of its own
    zero = torch.zeros(3, 2, dtype=f64)
    whole = select(mean, zero, p, 103, gen())
    assert seen == [103 * 6]
    module = __import__("sys").modules["hyperzero_torch.thompson.select"]
    for elements, expected in ((60, 11), (1, 103)):  # ten draws at a time; one, where none fits
        seen.clear()
        monkeypatch.setattr(module, "_TILE_ELEMENTS", elements)
        tiled = select(mean, zero, p, 103, gen())
        assert len(seen) == expected
        assert max(seen) <= max(elements, 6)
        assert all(a.equal(b) for a, b in zip(whole, tiled))
    wide = select(mean, zero + 0.04, p, 5000, gen())  # and in law where they are random
    monkeypatch.undo()
    once = select(mean, zero + 0.04, p, 5000, gen(1))
    for a, b in zip(wide.counts / 5000, once.counts / 5000):
        assert abs(float(a - b)) < 5 * math.sqrt(2 * 0.25 / 5000)


def test_the_global_generator_and_the_input_stay_as_they_are():
    mean, var = rand(4, 2), rand(4, 2, seed=1)
    kept = mean.clone(), var.clone()
    state = torch.get_rng_state()
    select(mean, var, problem(), 10, gen())
    propose(known(), problem(constraints=["b <= 50%"]), 20, 2, gen())
    assert torch.get_rng_state().equal(state)
    assert mean.equal(kept[0])
    assert var.equal(kept[1])
    select(mean, var, problem(), 10)
    assert not torch.get_rng_state().equal(state)
    torch.set_rng_state(state)


M, V = torch.zeros(3, 2, dtype=f64), torch.ones(3, 2, dtype=f64)


@pytest.mark.parametrize(
    ("mean", "var", "num", "names"),
    [
        (M[0], V[0], 5, r"\(candidates, 2\), got \(2,\)"),
        (M, V[:2], 5, r"\(3, 2\) and \(2, 2\)"),
        (M[:, :1], V[:, :1], 5, r"\(candidates, 2\), got \(3, 1\)"),
        (M[:0], V[:0], 5, "0 candidates"),
        (M, V, 0, "num_draws=0"),
        (M, V, -3, "num_draws=-3"),
        (M.to("meta"), V, 5, "cpu.*meta"),
        (M.to("meta"), V.to("meta"), 5, "cpu.*meta"),
    ],
)
def test_select_refuses(mean, var, num, names):
    with pytest.raises(ShapeError, match=names):
        select_function(mean, var, problem(), num, gen())


# --- joint draws ----------------------------------------------------------------------------


def small_posterior(noise=0.5):
    """Two metrics over two dims, in odd units, with few and noisy data."""
    x, y = rand(5, 2, seed=8), torch.randn(5, 2, generator=gen(9), dtype=f64)
    h = Hyperparameters(tensor([[0.6, 0.6]] * 2), tensor([1.0, 1.0]), tensor([0.0, 0.0]))
    scale = Standardiser(tensor([0.1, 0.0]), tensor([0.5, 2.0]))
    return Posterior(x, y, torch.full((5, 2), noise, dtype=f64), h, scale)


def test_joint_draws_know_that_neighbours_move_together():
    """Exact win probabilities of two near candidates: of their difference, not of their margins."""
    p = small_posterior()
    x = tensor([[0.20, 0.2], [0.25, 0.2]])
    mean, var = p.marginal(x)
    covariance = p.covariance(x)[0]
    gap = float(mean[0, 0] - mean[1, 0])
    spread = math.sqrt(float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    joint, marginal = phi(gap / spread), phi(gap / math.sqrt(float(var[:, 0].sum())))
    assert abs(joint - marginal) > 0.1  # or the test says nothing
    repeats, num, g = 200, 100, gen(10)
    won = [select_paths(p.paths(num, g), x, problem()).counts[0] / num for _ in range(repeats)]
    won = torch.stack(won).double()
    error = float(won.std()) / math.sqrt(repeats)
    assert abs(float(won.mean()) - joint) < 5 * error
    assert error < 0.005
    s = select(mean, var, problem(), K, gen(11))
    assert close(s.counts[0] / K, marginal)


def test_joint_draws_of_one_point_twice_are_feasible_together():
    """Nobody is feasible with probability 1 - p, not (1 - p)^2."""
    p = small_posterior()
    x = tensor([[0.5, 0.5], [0.5, 0.5]])
    mean, var = p.marginal(x)
    bound = float(mean[0, 1] + 0.3 * var[0, 1].sqrt())
    limited = problem(constraints=[Constraint("b", at_least=bound, may_exclude_base=True)])
    feasible = phi(-0.3)
    repeats, num, g = 200, 100, gen(12)
    chosen = [select_paths(p.paths(num, g), x, limited) for _ in range(repeats)]
    for s in chosen:
        assert s.prob_feasible[0] == s.prob_feasible[1]
        assert int(s.num_infeasible) == round(num * (1 - float(s.prob_feasible[0])))
    rate = torch.stack([s.prob_feasible[0] for s in chosen])
    assert abs(float(rate.mean()) - feasible) < 5 * float(rate.std()) / math.sqrt(repeats)
    s = select(mean, var, limited, K, gen(13))
    assert close(s.num_infeasible / K, (1 - feasible) ** 2)


def test_select_paths_is_the_winner_of_each_path(monkeypatch):
    p = small_posterior()
    x = rand(9, 2, seed=14)
    paths = p.paths(30, gen(15))
    limited = problem(constraints=["b >= -10%"])
    s = select_paths(paths, x, limited)
    assert s.winners.equal(best_of(limited.evaluate(paths(x))).winner)
    assert s.counts.equal(torch.bincount(s.winners, minlength=9))
    monkeypatch.setattr(Paths, "tile", property(lambda self: 4))
    module = __import__("sys").modules["hyperzero_torch.thompson.select"]
    monkeypatch.setattr(module, "_TILE_ELEMENTS", 9 * 2 * 7)
    free = problem()  # without a fallback, whose spread is each tile's own
    sizes = []
    call = Paths.__call__
    monkeypatch.setattr(Paths, "__call__", lambda s, at: sizes.append(len(at)) or call(s, at))
    tiled = select_paths(paths, x, free)
    assert sizes == [4, 4, 1]
    monkeypatch.undo()
    assert tiled.winners.equal(select_paths(paths, x, free).winners)


def test_select_paths_refuses_another_width():
    with pytest.raises(ShapeError, match="over 2 metrics, the problem over 3"):
        select_paths(
            small_posterior().paths(2, gen()), rand(3, 2), problem(metrics=["a", "b", "c"])
        )
    with pytest.raises(ShapeError, match="got 0 candidates"):
        select_paths(small_posterior().paths(2, gen()), rand(0, 2), problem())


# --- propose --------------------------------------------------------------------------------

_FITTED = {}


def known():
    """Certain of a = 1 - (u - 0.7)^2 - (v - 0.6)^2 and b = u, over the unit square."""
    if "square" not in _FITTED:
        x = SPACE.sobol(64, seed=1)
        a = 1 - (x[:, 0] - 0.7) ** 2 - (x[:, 1] - 0.6) ** 2
        y = torch.stack([a, x[:, 0]], dim=-1)
        _FITTED["square"] = Surrogate().fit(x, y, torch.full_like(y, 1e-10))
    return _FITTED["square"]


@pytest.mark.parametrize("draws", ["joint", "marginal"])
@pytest.mark.parametrize(
    ("constraints", "best"),
    [([], (0.7, 0.6)), (["b <= 50%"], (0.5, 0.6)), (["b <= 90%"], (0.7, 0.6))],
)
def test_proposals_lie_at_the_constrained_best_point_where_all_is_known(draws, constraints, best):
    p = propose(known(), problem(constraints=constraints), 4000, 6, gen(20), draws)
    assert p.x.shape == p.theta.shape == (6, 2)
    assert p.score.shape == p.feasible.shape == (6,)
    assert bool(p.feasible.all())
    assert float((p.x - tensor(best)).abs().max()) < 0.06
    value = 1 - (best[0] - 0.7) ** 2 - (best[1] - 0.6) ** 2
    torch.testing.assert_close(p.score, tensor([value] * 6), rtol=0, atol=0.02)
    if "b <= 50%" in constraints:
        assert float(p.x[:, 0].max()) < 0.505
    again = propose(known(), problem(constraints=constraints), 4000, 6, gen(20), draws)
    assert all(s.equal(t) for s, t in zip(p, again))
    other = propose(known(), problem(constraints=constraints), 4000, 6, gen(21), draws)
    assert not p.x.equal(other.x)


MIXED = SearchSpace(
    [
        Float("w", 0.1, 10.0, log=True),
        Int("n", 1, 4),
        Choice("c", ["a", "b", "c"]),
        Float("f", -1.0, 1.0),
    ]
)


@pytest.mark.parametrize("draws", ["joint", "marginal"])
def test_proposals_can_be_served(draws):
    x = MIXED.sobol(30, seed=2)
    y = torch.stack([x[:, 1] - x[:, 3], x[:, 0]], dim=-1)
    posterior = Surrogate().fit(x, y, torch.full_like(y, 0.01))
    base = {"w": 1.0, "n": 2, "c": "a", "f": 0.0}
    mixed = problem(space=MIXED, base=base, constraints=["b <= 60%"])
    p = propose(posterior, mixed, 300, 12, gen(22), draws)
    assert p.x.shape == (12, 6)
    assert p.theta.shape == (12, 4)
    assert MIXED.snap(p.x).equal(p.x)
    assert MIXED.from_unit(p.x).equal(p.theta)
    for row, parameters in zip(p.theta, MIXED.to_parameters(p.theta)):
        assert MIXED.theta(parameters).equal(row)
    assert p.theta[:, 1].mode().values == 4  # what is known to be best: many, and not "b"
    assert bool((p.theta[:, 2] != 1).all())


@pytest.mark.parametrize("draws", ["joint", "marginal"])
def test_proposals_say_where_nothing_is_feasible(draws):
    beyond = Constraint("a", at_least=2.0, may_exclude_base=True)
    p = propose(known(), problem(constraints=[beyond]), 2000, 5, gen(23), draws)
    assert not bool(p.feasible.any())
    assert bool((p.score < 0).all())
    assert float((p.x - tensor((0.7, 0.6))).abs().max()) < 0.08  # nearest to it, all the same


@pytest.mark.parametrize("draws", ["joint", "marginal"])
def test_more_proposals_than_samples(draws):
    p = propose(small_posterior(), problem(), 3, 40, gen(24), draws)
    assert p.x.shape == (40, 2)
    assert len(p.x.unique(dim=0)) <= 3
    assert propose(small_posterior(), problem(), 1, 1, gen(24), draws).x.shape == (1, 2)


@pytest.mark.parametrize("draws", ["joint", "marginal"])
def test_each_proposal_is_the_best_of_its_own_draw(draws):
    """Over two samples at fixed places the winners have the exact probability."""
    p = small_posterior()
    shared = problem()
    places = tensor([[0.20, 0.2], [0.25, 0.2]])
    space = SearchSpace(SPACE.parameters)
    space.uniform = lambda num, generator=None: places  # type: ignore[method-assign]
    shared.space = space
    mean, var = p.marginal(places)
    c = p.covariance(places)[0]
    variance = (
        float(var[:, 0].sum()) if draws == "marginal" else float(c[0, 0] + c[1, 1] - 2 * c[0, 1])
    )
    want = phi(float(mean[0, 0] - mean[1, 0]) / math.sqrt(variance))
    g = gen(25)
    won = [
        (propose(p, shared, 2, 100, g, draws).x[:, 0] == 0.2).double().mean() for _ in range(150)
    ]
    won = torch.stack(won)
    error = float(won.std()) / math.sqrt(150)
    assert abs(float(won.mean()) - want) < 5 * error
    assert error < 0.01  # the proposals of one call are draws of their own


def test_joint_proposals_do_not_depend_on_the_tile(monkeypatch):
    limited = problem(constraints=["b >= -10%"])
    whole = propose(small_posterior(), limited, 500, 8, gen(26))
    monkeypatch.setattr(Paths, "tile", property(lambda self: 7))
    sizes = []
    call = Paths.__call__
    monkeypatch.setattr(Paths, "__call__", lambda s, x: sizes.append(len(x)) or call(s, x))
    tiled = propose(small_posterior(), limited, 500, 8, gen(26))
    assert sizes == [7] * 71 + [3]
    assert tiled.x.equal(whole.x)
    assert tiled.feasible.equal(whole.feasible)
    torch.testing.assert_close(tiled.score, whole.score, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("samples", "proposals", "names"),
    [(0, 1, "num_samples=0"), (5, 0, "num_proposals=0"), (-1, 1, "num_samples=-1")],
)
def test_propose_refuses_counts_below_one(samples, proposals, names):
    with pytest.raises(ShapeError, match=names):
        propose(small_posterior(), problem(), samples, proposals, gen())


def test_propose_refuses_a_posterior_of_another_width():
    with pytest.raises(ShapeError, match="2 dims and 2 metrics, the problem over 2 dims and 3"):
        propose(small_posterior(), problem(metrics=["a", "b", "c"]), 5, 1, gen())
    base = {"w": 1.0, "n": 2, "c": "a", "f": 0.0}
    with pytest.raises(ShapeError, match="2 dims and 2 metrics, the problem over 6 dims"):
        propose(small_posterior(), problem(space=MIXED, base=base), 5, 1, gen())


def test_caution_does_not_vanish_where_there_are_few_draws():
    """A risky arm against a safe one: its share is that of many draws, one draw at a time."""
    problem = Problem(
        space=SearchSpace([Float("a", 0.0, 1.0)]),
        base={"a": 0.5},
        metrics=["gain", "guard"],
        objective="gain",
        constraints=["guard >= -1%"],
    )
    mean = torch.tensor([[0.2, 0.0], [0.1, 1.0]], dtype=torch.float64)
    var = torch.tensor([[1e-6, 0.01], [1e-6, 1e-6]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    many = select(mean, var, problem, 4000, generator, 1.0).counts[0] / 4000
    few = sum(select(mean, var, problem, 1, generator, 1.0).counts[0] for _ in range(1000)) / 1000
    # Five standard errors of a share from 1000 draws; the margin itself is known within 5 %.
    spread = float((many * (1 - many) / 1000) ** 0.5)
    assert abs(float(few - many)) < 5 * spread + 0.02


def test_of_the_best_by_chunk_the_feasible_come_first_and_violations_have_one_unit():
    def best_point(*outcomes):
        """Of chunks of one point each, which is at (slack, utility)."""
        chunks = [tensor([[slack, utility]]) for utility, slack in outcomes]
        points, best = best_points(chunks, lambda x: Outcome(x[None, :, 1], x[None, :, :1]))
        return points.tolist(), best.feasible.tolist()

    assert best_point((9.0, -3.0), (-math.inf, 1.0)) == ([[1.0, -math.inf]], [True])
    assert best_point((0.0, -2.0), (0.0, -5.0), (0.0, -1.0)) == ([[-1.0, 0.0]], [False])


@pytest.mark.parametrize("num_starts", [0, 3])
def test_proposals_from_many_chunks_are_as_good_as_from_one(monkeypatch, fitted, num_starts):
    """Of 130 points in chunks of 16, seed by seed: the same distribution of scores."""
    world = GuardrailWorld(0, 2)
    posterior = fitted(world, num=20)
    module = sys.modules["hyperzero_torch.thompson.propose"]

    def scores():
        proposals = [
            propose(posterior, world.problem, 130, 4, gen(seed), num_starts=num_starts)
            for seed in range(25)
        ]
        assert all(bool(f.feasible.all()) for f in proposals)
        return torch.cat([f.score for f in proposals])

    whole = scores()
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 16 * 4 * 3)
    cut = scores()
    error = ((whole.var() + cut.var()) / 100).sqrt()
    assert abs(float(whole.mean() - cut.mean())) < 5 * float(error)


def test_paths_are_taken_by_slices(fitted):
    paths = fitted(GuardrailWorld(0, 2), num=20).paths(5, gen())
    x = torch.rand(3, 2, dtype=torch.float64)
    torch.testing.assert_close(paths[1:3](x), paths(x)[1:3])
    with pytest.raises(ShapeError, match="slices"):
        paths[0]
