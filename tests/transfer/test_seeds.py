"""Seeds: suggested where sources agree, within reach, apart from each other, and worth the risk."""

import pytest
import torch
from support.related_sources import related, source, world

from hyperzero_torch.transfer.model import acceptance, seeds
from hyperzero_torch.transfer.prior import Prior


@pytest.fixture(scope="module")
def prior():
    place = world()
    return place, Prior(place.problem, related(place, num=3))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_seeds_are_good_apart_and_within_reach(prior):
    place, sources = prior
    seeds = sources.seeds(place.problem, 6, generator())
    assert 3 <= len(seeds.theta) <= 6
    assert seeds.trace.seeds == len(seeds.theta)
    truth = place.truth(seeds.theta)
    best = place.oracle(num_samples=4000).gain
    assert float(truth.gain[truth.violation <= 0].max()) > 0.8 * best
    assert float(truth.violation.max()) < 0.01
    x = place.problem.space.to_unit(seeds.theta)
    lengthscale = sources.family.inducing.lengthscale.amin(0)
    apart = torch.cdist(x / lengthscale, x / lengthscale) + 10 * torch.eye(len(x)).double()
    assert float(apart.min()) >= 0.15 - 1e-6
    reach = torch.cdist(x / lengthscale, sources.family.points / lengthscale).amin(1)
    assert float(reach.max()) <= 0.5 + 1e-6


def test_seeds_are_a_function_of_the_generator(prior):
    place, sources = prior
    one, two = (sources.seeds(place.problem, 4, generator(3)).theta for _ in range(2))
    assert torch.equal(one, two)


def test_a_single_source_and_sources_that_disagree_seed_nothing():
    place = world()
    alone = Prior(place.problem, related(place, num=1)).seeds(place.problem, 4, generator())
    assert len(alone.theta) == 0
    assert "shows no agreement" in alone.trace.reason
    mixed = [source("a", place), source("b", place, seed=1)]
    order = torch.randperm(len(mixed[0]), generator=generator(5))
    shuffled = [
        type(one)(
            name=one.name,
            parameters=one.parameters,
            metrics=one.metrics,
            mean=one.mean[order],
            var=one.var[order],
        )
        for one in mixed
    ]
    # Each shuffled in a way of its own.
    object.__setattr__(shuffled[1], "mean", mixed[1].mean[order.flip(0)])
    disagreeing = Prior(place.problem, shuffled)
    assert seeds.agreement(disagreeing.family) < seeds.LEAST_AGREEMENT
    assert len(disagreeing.seeds(place.problem, 4, generator()).theta) == 0


def test_what_is_expected_of_the_target_is_0_at_its_base_and_near_the_truth(prior):
    place, sources = prior
    expected = seeds.prior_posterior(place.problem, sources.family)
    base = place.problem.space.to_unit(place.problem.base_theta.unsqueeze(0))
    mean, var = expected.marginal(base)
    assert float(mean.abs().max()) < 1e-3
    assert float(var.sqrt().max()) < 1e-3
    x = place.problem.space.sobol(256, seed=3)
    mean, var = expected.marginal(x)
    z = (place.true_delta(place.problem.space.from_unit(x)) - mean) / var.sqrt()
    assert float(z.square().mean().sqrt()) < 1.5


def test_suited_points_reach_their_level_and_rise_as_it_falls(prior):
    place, sources = prior
    expected = seeds.prior_posterior(place.problem, sources.family)
    points = seeds.feasible_maximisers(expected, place.problem, (0.99, 0.6), generator())
    assert points.shape == (2, 2)
    judged = acceptance.risk_screen(expected, place.problem, points, generator(1))
    # P(gain > 0 and feasible) is estimated from 512 draws here and 128 there.
    assert float(judged.prob[0]) > 0.9
    assert float(judged.prob[1]) > 0.45
    mean, _ = expected.marginal(points)
    assert float(mean[1, 0]) >= float(mean[0, 0])
