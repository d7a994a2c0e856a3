"""Who is worth verifying: the expected improvement, against its closed form."""

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld, run
from hyperzero_torch.tuner.verification import (
    HORIZONS,
    knowledge_gradient,
    posterior_variance_after,
)

F64 = torch.float64
STANDARD = torch.distributions.Normal(torch.zeros((), dtype=F64), 1.0)
NOISE = torch.full((2,), 0.004**2, dtype=F64)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def worth(posterior, x, floor, rounds, prob=0.9):
    """Closed form for one gain to maximise and one guardrail at -0.1 %, which are independent.

    After verification gain' ~ N(m, v - left): E[(gain' - floor)+]. Safe when guard' + 0.001 clears
    its left-over standard deviation by the normal's quantile.
    """
    mean, var = posterior.marginal(x)
    left = posterior_variance_after(var, NOISE, rounds)
    moves = (var - left).clamp_min(1e-18).sqrt()
    clear = mean[:, 1] + 0.001 - STANDARD.icdf(torch.tensor(prob, dtype=F64)) * left[:, 1].sqrt()
    z = (mean[:, 0] - floor) / moves[:, 0]
    gain = moves[:, 0] * (z * STANDARD.cdf(z) + STANDARD.log_prob(z).exp())
    return STANDARD.cdf(clear / moves[:, 1]) * gain


@pytest.mark.parametrize("seed", [2, 5, 7])
def test_leaders_are_worth_as_much_as_the_best_of_a_dense_search_in_closed_form(seed, fitted):
    world = GuardrailWorld(seed)
    problem, posterior = world.problem, fitted(world, 96, seed=seed)
    known = posterior.x
    gradient = knowledge_gradient(posterior, problem, known, 0.9, NOISE, gen())
    assert len(gradient) == len(HORIZONS)
    mean, var = posterior.marginal(known)
    safe = STANDARD.cdf((mean[:, 1] + 0.001) / var[:, 1].sqrt()) >= 0.9
    floor = torch.where(safe, mean[:, 0], 0.0).max().clamp_min(0.0)
    dense = problem.space.sobol(8192, seed=1)
    for x, rounds in zip(gradient, HORIZONS):
        best = float(worth(posterior, dense, floor, rounds).max())
        # 32 x 32 quasi-random draws: P(feasible) is known to 1/32, worth to about a quarter.
        assert float(worth(posterior, x.unsqueeze(0), floor, rounds)) > 0.7 * best


def test_a_leader_lies_beyond_what_is_safe_today_where_that_pays(fitted):
    world = GuardrailWorld(2)
    posterior = fitted(world, 96, noise=0.008)
    gradient = knowledge_gradient(posterior, world.problem, posterior.x, 0.9, NOISE, gen())
    mean, var = posterior.marginal(gradient)
    today = STANDARD.cdf((mean[:, 1] + 0.001) / var[:, 1].sqrt())
    assert float(today[-1]) < 0.9  # a day ahead: not safe yet
    assert float(mean[-1, 0]) > 0.0


def test_where_nothing_can_be_proved_nobody_leads(fitted):
    world = GuardrailWorld(0, feasible=False)
    posterior = fitted(world, 96)
    assert len(knowledge_gradient(posterior, world.problem, posterior.x, 0.9, NOISE, gen())) == 0


def test_an_objective_of_nan_leads_nobody(fitted):
    world = GuardrailWorld(1)
    space, base = world.problem.space, world.problem.base
    nothing = hz.Problem(
        space, base, ["gain", "guard"], lambda d: d[..., 0] / 0 * 0, ["guard >= -1%"]
    )
    posterior = fitted(world, 96)
    assert len(knowledge_gradient(posterior, nothing, posterior.x, 0.9, NOISE, gen())) == 0


def test_leaders_are_repeatable(fitted):
    world = GuardrailWorld(4)
    posterior = fitted(world, 96)
    first = knowledge_gradient(posterior, world.problem, posterior.x, 0.9, NOISE, gen(3))
    again = knowledge_gradient(posterior, world.problem, posterior.x, 0.9, NOISE, gen(3))
    assert torch.equal(first, again)


def test_where_moments_of_many_candidates_are_kept_the_plans_are_the_same(monkeypatch):
    """From a size on, the moments of the bucket are computed once for both searches."""
    asked = []
    for many in (1000, 1):
        monkeypatch.setattr("hyperzero_torch.tuner.verification._MANY", many)
        world = GuardrailWorld(2)
        tuner = hz.Tuner(world.problem, hz.TunerConfig(initial_candidates=24), seed=0)
        assert len(list(run(tuner, world, 7))) == 7
        assert any(c.origin == "leader" for c in tuner.history.candidates)
        asked.append([tuner.study.plan(r) for r in range(7)])
    for plan, other in zip(*asked):
        assert (plan.candidate_ids, plan.shares) == (other.candidate_ids, other.shares)
        torch.testing.assert_close(plan.theta, other.theta)
