"""Regions of a living recommender: the form that is raced against the world of users and items."""

import math

import pytest
import torch

pytest.importorskip("scipy")

from bench.transfer import misled, regions
from hyperzero_torch import InputError
from hyperzero_torch.study.plan import Plan

TRAFFIC = 4.0


@pytest.fixture(scope="module")
def target():
    return regions.Region(1, regions.TARGET, 0.98, TRAFFIC)


@pytest.fixture(scope="module")
def source(target):
    return target.sources(1)[0]


def thetas(region, num, seed):
    return region.space.from_unit(region.space.sobol(num, seed=seed))


def arms_of(messages, problem, field, num):
    """A field of the readings of several messages, ``(num, 3)``, by candidate and metric."""
    arms = torch.full((num, len(regions.METRICS)), math.nan, dtype=torch.float64)
    for sent in messages:
        names = [problem.metrics[i] for i in sent.readings.metric_index(problem.metrics)]
        values = getattr(sent.readings, field).tolist()
        for candidate, name, value in zip(sent.readings.candidate.tolist(), names, values):
            if name in regions.METRICS:
                arms[candidate, regions.METRICS.index(name)] = value
    return arms


def test_lifts_are_the_panels_closer_than_the_panel_is_to_all_requests(target):
    """At thetas that were not tabulated."""
    world = target.world
    theta = thetas(target, 40, seed=99)
    base = world.totals(target.truth_problem.base_theta[None])
    panel = world.totals(theta) / base - 1
    error = (target.true_delta(theta) - panel).square().mean(0).sqrt()
    sampling = world.true_delta_error(theta)[:, regions._COLUMNS].square().mean(0).sqrt()
    assert bool((error < sampling).all()), (error, sampling)
    assert target.true_delta(target.truth_problem.base_theta[None]).abs().max() < 1e-12


def test_scaling_all_weights_changes_nothing(target):
    theta = thetas(target, 8, seed=3)
    torch.testing.assert_close(target.true_delta(2 * theta), target.true_delta(theta))


def test_noise_and_levels_are_those_of_simulated_users(target):
    """Arms of the cheap form against the world's own service of the base, hour by hour."""
    world = target.world
    theta = world.truth_problem.base_theta[None]
    settings = tuple(target.space.to_parameters(theta))
    means, variances, counts = [], [], []
    for hour in range(3):
        last = world.serve(Plan(hour, (0,), settings, theta, (1,), (1.0,)))[-1:]
        mean, var, count = (
            arms_of(last, world.problem, name, 1)[0] for name in ("mean", "var", "count")
        )
        means.append(mean)
        variances.append(var)
        counts.append(float(count[0]))
        expected = float(world.users()[hour])
        # Who comes is a Poisson's number at most.
        assert abs(counts[-1] - expected) < 5 * math.sqrt(expected)
    share = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    mean, var = share @ torch.stack(means), share @ torch.stack(variances)
    # Both levels are means over thousands of users: five standard errors of their difference.
    spread = target.spread.square().sum(1)
    error = (var / sum(counts) + spread / world.users()[12]).sqrt()
    assert bool(((mean - target.level).abs() < 5 * error).all())
    assert bool(((var / spread).log().abs() < math.log(1.5)).all())


def test_arms_scatter_as_their_readings_say(target):
    base = target.truth_problem.base_theta.expand(300, -1)
    settings = tuple(target.space.to_parameters(base))
    plan = Plan(5, tuple(range(300)), settings, base, (1,) * 300, (1 / 300,) * 300)
    means, var, count = (
        arms_of(target.serve(plan), target.problem, name, 300) for name in ("mean", "var", "count")
    )
    known = var / count
    # The variance of 300 means is itself known to sqrt(2 / 299), 8 %: within four of those.
    assert bool(((means.var(0) / known.mean(0) - 1).abs() < 0.33).all())
    together = torch.corrcoef(means.T)
    wanted = target.spread @ target.spread.T
    wanted = wanted / wanted.diagonal().sqrt().outer(wanted.diagonal().sqrt())
    assert bool(((together - wanted).abs() < 4 / math.sqrt(300)).all())


def test_a_target_has_something_to_gain_and_a_guardrail_that_binds(target):
    truth = target.truth(thetas(target, 2048, seed=0))
    assert float(truth.gain[truth.violation <= 0].max()) >= 0.03
    assert float(truth.violation[truth.gain.argmax()]) >= 0.01
    oracle = target.oracle()
    assert oracle.gain >= float(truth.gain[truth.violation <= 0].max()) - 1e-12
    assert float(target.truth(oracle.theta[None]).violation) <= 0


def test_relatives_are_alike_by_their_share():
    alike = []
    for share in (1.0, 0.0):
        one, other = (regions.Region(2, member, share, TRAFFIC) for member in (0, 1))
        theta = thetas(one, 256, seed=7)
        both = torch.stack([one.true_delta(theta), other.true_delta(theta)])
        alike.append([float(torch.corrcoef(both[:, :, k])[0, 1]) for k in range(3)])
        assert one.problem.base_theta.tolist() != other.problem.base_theta.tolist()
        assert not torch.allclose(one.level, other.level, rtol=0.01)
    assert min(alike[0]) > 0.98
    assert sum(alike[1]) < sum(alike[0]) - 0.1


def test_a_source_is_what_a_study_left_behind(target, source):
    assert source.name == "related_1"
    assert len(source) == regions._DESIGN + regions._CLOUD
    assert tuple(source.metrics) == regions.METRICS
    assert source.shared is not None
    features = source.meta_features
    assert features["peak_to_trough"] == pytest.approx(math.log(8), abs=0.1)
    assert {"level:hides", "noise:watch_time", "users", "rhythm_sin"} <= set(features)
    other = regions.Region(1, 1, 0.98, TRAFFIC)
    settings = torch.stack([target.space.theta(p) for p in source.parameters])
    true = other.true_delta(settings)
    z = (source.mean - true) / source.var.sqrt()
    # 96 deltas share the error of one control: their squares average 1 only roughly.
    assert 0.5 < float(z.square().mean()) < 2.0


def test_the_same_round_served_again_is_the_same(target):
    theta = thetas(target, 4, seed=1)
    settings = tuple(target.space.to_parameters(theta))
    plan = Plan(7, (0, 1, 2, 3), settings, theta, (1,) * 4, (0.25,) * 4)
    for one, other in zip(target.serve(plan), target.serve(plan)):
        assert one.due == other.due
        assert one.readings.mean.tolist() == other.readings.mean.tolist()


def test_sources_that_mislead_say_what_they_are_named_for(target):
    """Each against the honest source of the same region."""
    honest = target.sources(2)[1]
    by_kind = {kind: target.sources(2, kind)[1] for kind in misled.MISLEADING}
    assert [s.name for s in by_kind.values()] == [f"{kind}_2" for kind in by_kind]
    for source in by_kind.values():
        assert (source.base, source.meta_features) == (honest.base, honest.meta_features)
    assert by_kind["reversed"].mean.tolist() == (-honest.mean).tolist()
    assert by_kind["shifted"].mean.tolist() == honest.mean.tolist()
    x, moved = (
        target.space.to_unit(torch.stack([target.space.theta(p) for p in s.parameters]))
        for s in (honest, by_kind["shifted"])
    )
    step = (moved - x) % 1.0
    torch.testing.assert_close(step, torch.full_like(step, misled._SHIFT), atol=1e-6, rtol=0)
    shuffled = by_kind["shuffled"]
    assert sorted(shuffled.mean.tolist()) == sorted(honest.mean.tolist()) != shuffled.mean.tolist()
    own = shuffled.shared.diagonal(dim1=-2, dim2=-1).T / shuffled.var
    assert sorted(own[:, 0].tolist()) == pytest.approx(
        sorted((honest.shared.diagonal(dim1=-2, dim2=-1).T / honest.var)[:, 0].tolist())
    )


def test_a_source_of_noise_scatters_as_it_says(target):
    """Variance of each delta, and covariance of any two, over 400 sources of noise."""
    honest = target.sources(1)[0]
    drawn = torch.stack(
        [misled.misled(honest, "noise", target.space, seed).mean for seed in range(400)]
    )
    wanted = honest.shared[0].clone()
    wanted.diagonal().copy_(honest.var[:, 0])
    size = wanted.diagonal().sqrt()
    error = (drawn[..., 0].T.cov() - wanted) / size / size.unsqueeze(1)
    # An entry of an empirical correlation over n draws is known to 1 / sqrt(n), a variance to
    # sqrt(2 / n); the largest of 4,656 lies within five of them.
    assert float(error.abs().max()) < 5 * math.sqrt(2 / 400)
    assert float(error.mean().abs()) < 5 / math.sqrt(400)


def test_one_good_among_bad_ones(target):
    names = [source.name for source in target.sources(2, "one_good")]
    assert names == ["related_1", "shifted_2"]


def test_kinds_that_regions_do_not_have_are_refused(target):
    with pytest.raises(InputError, match="shuffled, noise, one_good, got 'better'"):
        target.sources(1, "better")
    with pytest.raises(InputError, match="reversed, shifted, shuffled, noise, got 'late'"):
        misled.misled(target.sources(1)[0], "late", target.space, 0)
