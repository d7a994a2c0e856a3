"""Worlds that nothing is tuned on differ from the family in the one thing that they name."""

import math

import pytest
import torch

from bench.quality.race.limit import chance, score
from bench.quality.race.siblings import SiblingWorld, weak_hours_of
from bench.quality.race.worlds import SIBLINGS, WORLDS
from hyperzero_torch.simulate import GuardrailWorld

NAMES = tuple(SIBLINGS)
LARGEST = {"small": 0.02, "large": 0.1}
NUM = 4096


@pytest.mark.parametrize("dims", [2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_the_guardrail_binds_and_there_is_something_to_gain(name, dims):
    world = WORLDS[name](5, dims, 1.0)
    space, largest = world.problem.space, LARGEST.get(name, 0.05)
    lifts = world.true_delta(space.from_unit(space.sobol(NUM, seed=0)))
    assert torch.allclose(lifts.abs().amax(0), torch.full((2,), largest, dtype=lifts.dtype))
    base = world.truth(world.problem.base_theta.unsqueeze(0))
    assert float(base.gain) == float(base.violation) == 0.0
    truth = world.truth(space.from_unit(space.sobol(2048, seed=0)))
    assert float(truth.violation[truth.gain.argmax()]) >= 0.1 * largest
    assert float(truth.gain[truth.violation <= 0].max()) >= 0.4 * largest


def test_the_same_seed_is_the_same_world_and_another_is_another():
    x = torch.rand(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name in NAMES:
        first, again, other = (WORLDS[name](seed, 4, 1.0) for seed in (1, 1, 2))
        assert torch.equal(first.true_delta(x), again.true_delta(x))
        assert torch.equal(first.levels, again.levels)
        assert not torch.equal(first.true_delta(x), other.true_delta(x))


def test_the_plain_one_is_the_family_s():
    x = torch.rand(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        world, family = SiblingWorld(seed, 4), GuardrailWorld(seed, 4)
        assert torch.equal(world.true_delta(x), family.true_delta(x))
        assert torch.equal(world.problem.base_theta, family.problem.base_theta)
        assert torch.equal(world.levels, family.levels)


def test_parameters_of_additive_surfaces_do_not_interact():
    def interaction(world):
        x = 0.1 + 0.3 * torch.rand(64, 2, dtype=torch.float64)
        step = torch.tensor([[0.4, 0.0], [0.0, 0.4]], dtype=torch.float64)
        values = [world.true_delta(x + a * step[0] + b * step[1]) for a in (0, 1) for b in (0, 1)]
        return float((values[0] - values[1] - values[2] + values[3]).abs().max())

    torch.manual_seed(0)
    assert interaction(SiblingWorld(0, surface="additive")) < 1e-15
    assert interaction(SiblingWorld(0)) > 0.005


def test_the_slope_jumps_across_a_kink():
    """A second difference over its step: on a smooth surface it falls with the step."""

    def sharpest(world, step):
        x = torch.linspace(0.0, 1.0, 4001, dtype=torch.float64)
        line = torch.stack([x, torch.full_like(x, 0.5)], dim=-1)
        along = torch.tensor([step, 0.0], dtype=torch.float64)
        at = [world.true_delta(line + k * along)[:, 0] for k in (-1, 0, 1)]
        return float((at[0] - 2 * at[1] + at[2]).abs().max()) / step

    kink, smooth = SiblingWorld(3, surface="kink"), SiblingWorld(3)
    assert sharpest(kink, 1e-3) / sharpest(kink, 1e-2) == pytest.approx(1.0, abs=0.2)
    assert sharpest(smooth, 1e-3) / sharpest(smooth, 1e-2) == pytest.approx(0.1, abs=0.05)


def test_matern_surfaces_are_rough():
    """Halving a step divides the mean square of second differences by 16, or by 8 if rough."""

    def ratio(surface):
        generator, squares = torch.Generator().manual_seed(0), torch.zeros(2)
        x = 0.3 + 0.4 * torch.rand(64, 2, dtype=torch.float64, generator=generator)
        for seed in range(40):
            world = SiblingWorld(seed, surface=surface)
            for i, step in enumerate((0.02, 0.01)):
                along = torch.tensor([step, 0.0], dtype=torch.float64)
                at = [world.true_delta(x + k * along)[:, 0] for k in (-1, 0, 1)]
                squares[i] += float((at[0] - 2 * at[1] + at[2]).square().mean())
        return float(squares[0] / squares[1])

    assert 6.5 < ratio("matern") < 11.0
    assert 15.0 < ratio("smooth") < 16.5


def test_a_weak_hour_has_a_sixth_of_the_mean():
    world = SiblingWorld(0, weak_hours=True)
    level = world.levels
    assert torch.allclose(level.mean(0), GuardrailWorld(0).levels.mean(0))
    assert torch.allclose(level.amin(0) / level.mean(0), torch.full((2,), 1 / 6).to(level))
    assert level[:, 0].argmax() == GuardrailWorld(0).levels[:, 0].argmax()
    information = level[:, 0].square().sort(descending=True).values
    assert information[:12].sum() > 0.85 * information.sum()
    assert torch.equal(weak_hours_of(level), level)


@pytest.mark.parametrize("dims", [2, 4])
def test_a_base_at_a_corner(dims):
    base = SiblingWorld(1, dims, at_corner=True).problem.base_theta
    assert torch.allclose((base - 0.5).abs(), torch.full((dims,), 0.45).to(base))


def test_the_chance_of_a_recommendation_is_that_of_drawn_readings():
    draws = 400_000
    generator = torch.Generator().manual_seed(0)
    cases = [(0.5, 3.0), (1.5, 1.5), (2.0, 0.3), (3.0, 8.0), (9.0, 1.0), (30.0, 2.0), (4.0, -1.0)]
    gain, slack = torch.tensor(cases, dtype=torch.float64).unbind(-1)
    for g, s, computed in zip(gain, slack, chance(gain, slack).tolist()):
        noise = torch.randn(2, draws, dtype=torch.float64, generator=generator)
        both = torch.special.ndtr(g + noise[0]) * torch.special.ndtr(s + noise[1])
        drawn = float((both >= 0.9).double().mean())
        assert abs(drawn - computed) < 4 * math.sqrt(computed * (1 - computed) / draws) + 1e-9


def test_who_knows_the_answer_needs_time_and_traffic():
    worlds = [GuardrailWorld(0, 4, traffic=traffic) for traffic in (1.0, 0.1)]
    (full, later), (thin, _) = ([score(w, hour) for hour in (10, 30)] for w in worlds)
    assert 0 < thin < full < later <= 1.0
