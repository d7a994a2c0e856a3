"""Gradient refinement of proposals, and cautious selection."""

import math

import pytest
import torch

import hyperzero_torch as hz
from hyperzero_torch.simulate import GuardrailWorld
from hyperzero_torch.thompson import select_paths
from hyperzero_torch.thompson.refine import refine

F64 = torch.float64


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=[2, 8])
def scene(request, fitted):
    world = GuardrailWorld(1, request.param)
    return world.problem, fitted(world, 32 * request.param)


def rank(outcome):
    """Feasible first, by utility; else by violation."""
    shortfall = (-outcome.slack).clamp_min(0).sum(-1)
    return torch.where(outcome.feasible, outcome.utility, -10 - shortfall)


def test_each_path_at_its_own_points_is_what_all_paths_say_there(scene):
    _, posterior = scene
    paths = posterior.paths(5, gen())
    x = torch.rand(5, 3, posterior.x.shape[1], dtype=F64, generator=gen(1))
    every = paths(x.reshape(15, -1)).reshape(5, 5, 3, -1)
    own = every[torch.arange(5), torch.arange(5)]
    torch.testing.assert_close(paths.each(x), own, rtol=1e-10, atol=1e-12)
    for wrong in (x[:4], x[0], x[..., :1]):
        with pytest.raises(hz.ShapeError):
            paths.each(wrong)


def test_refinement_never_makes_a_proposal_worse_and_mostly_better(scene):
    problem, posterior = scene
    paths = posterior.paths(12, gen())
    starts = problem.space.uniform(36, gen(1)).reshape(12, 3, -1)
    refined = refine(paths, problem, starts)
    with torch.no_grad():
        before = rank(problem.evaluate(paths.each(starts))).amax(1)
        after = rank(problem.evaluate(paths.each(refined.unsqueeze(1))))[:, 0]
    assert (after >= before).all()
    assert float((after > before).double().mean()) > 0.8
    assert bool(((refined >= 0) & (refined <= 1)).all())


def test_refinement_beats_many_times_the_random_points_in_eight_dimensions(fitted):
    world = GuardrailWorld(1, 8)
    posterior = fitted(world, 256)
    few = hz.thompson.propose(posterior, world.problem, 512, 16, gen(), num_starts=2)
    many = hz.thompson.propose(posterior, world.problem, 16_384, 16, gen(), num_starts=0)
    assert bool(few.feasible.all())
    assert float(few.score.mean()) > float(many.score.mean())


def test_refinement_finds_a_known_constrained_optimum():
    """Maximise a + b with a known: slack 0.25 - a, so a = 0.25 and b = 1, whatever the start."""
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.0, "b": 0.0}, ["a", "b"], "a + b", ["a <= 25%"])
    x = space.sobol(64, seed=0)
    posterior = hz.Surrogate().fit(x, x.clone(), torch.full_like(x, 1e-8))
    paths = posterior.paths(4, gen())
    refined = refine(paths, problem, space.uniform(8, gen(2)).reshape(4, 2, 2))
    torch.testing.assert_close(
        refined, torch.tensor([[0.25, 1.0]], dtype=F64).expand(4, 2), atol=0.02, rtol=0
    )


def test_whole_numbers_and_categories_keep_the_starts_values():
    space = hz.SearchSpace(
        [hz.Float("a", 0.1, 10.0, log=True), hz.Int("n", 1, 8), hz.Choice("mode", ["p", "q"])]
    )
    base = {"a": 1.0, "n": 1, "mode": "p"}
    problem = hz.Problem(space, base, ["m"], "m", [])
    x = space.uniform(30, gen())
    posterior = hz.Surrogate().fit(x, x[:, :1] ** 2, torch.full((30, 1), 1e-4, dtype=F64))
    starts = space.uniform(6, gen(1)).reshape(6, 1, -1)
    refined = refine(posterior.paths(6, gen()), problem, starts)
    assert refined[:, 1:].equal(starts[:, 0, 1:])
    assert space.snap(refined).equal(refined)
    assert float((refined[:, 0] - starts[:, 0, 0]).abs().max()) > 0.01


@pytest.mark.parametrize(
    "objective",
    [
        lambda d: d[..., 0].detach(),  # no gradient
        lambda d: (d[..., 0] > 0).to(d),  # flat
        lambda d: torch.zeros_like(d[..., 0]),  # constant
        lambda d: (d[..., 0] - 10).sqrt(),  # NaN everywhere
        lambda d: torch.full_like(d[..., 0], math.inf),
    ],
)
def test_objectives_without_a_usable_gradient_still_give_a_proposal(objective, fitted):
    world = GuardrailWorld(0)
    problem = hz.Problem(world.problem.space, world.problem.base, ["gain", "guard"], objective)
    made = hz.thompson.propose(fitted(world), problem, 64, 3, gen(), num_starts=2)
    assert made.x.shape == (3, 2)
    assert bool(made.x.isfinite().all())


def test_caution_moves_winners_to_where_the_guardrail_is_clear(fitted):
    world = GuardrailWorld(3)
    posterior = fitted(world, noise=0.01)
    x = world.problem.space.sobol(256, seed=4)
    feasible = []
    for caution in (0.0, 1.0, 2.0):
        won = select_paths(posterior.paths(400, gen()), x, world.problem, caution)
        assert int(won.counts.sum()) == 400
        feasible.append(float((won.counts * won.prob_feasible).sum()) / 400)
    assert feasible[0] < feasible[1] < feasible[2]
    mean, var = posterior.marginal(x)
    bold = hz.thompson.select(mean, var, world.problem, 400, gen())
    wary = hz.thompson.select(mean, var, world.problem, 400, gen(), caution=2.0)
    assert float((wary.counts * wary.prob_feasible).sum()) > float(
        (bold.counts * bold.prob_feasible).sum()
    )
