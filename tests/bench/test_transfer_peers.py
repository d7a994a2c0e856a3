"""BoTorch's peers of the transfer race: restated posteriors, the tutorial's weights."""

import pytest
import torch

pytest.importorskip("botorch")

from botorch.models import ModelListGP, MultiTaskGP, SingleTaskGP

from bench.transfer import settled
from bench.transfer.botorch_peers import MultiTask, RankingWeighted, Rows
from bench.transfer.families import MemberWorld

CLOSE = {"rtol": 1e-6, "atol": 1e-7}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def rows(num, generator, metrics=2):
    x = torch.rand(num, 3, dtype=torch.float64, generator=generator)
    steep = torch.tensor([[3.0, 1.0], [0.5, -2.0], [0.0, 1.0]], dtype=torch.float64)[:, :metrics]
    mean = 0.02 * (x @ steep).sin()
    var = 1e-6 + 1e-5 * torch.rand(mean.shape, dtype=torch.float64, generator=generator)
    return Rows(x, mean + var.sqrt() * torch.randn(mean.shape, generator=generator), var)


def units_of(part):
    return settled.Units.of(part.mean[:, 0], part.var[:, 0])


def single_model(part):
    units = units_of(part)
    model = SingleTaskGP(
        part.x, units.y.unsqueeze(-1), units.noise.unsqueeze(-1), outcome_transform=None
    )
    model.covar_module.lengthscale = torch.tensor([0.4, 0.7, 1.3], dtype=torch.float64)
    model.mean_module.constant.data.fill_(0.3)
    return model, units


def test_a_settled_process_is_botorchs_posterior(generator):
    model, units = single_model(rows(25, generator))
    x = torch.rand(4, 6, 3, dtype=torch.float64, generator=generator)
    wanted = model.posterior(x)
    mean, covariance = settled.single(model, units).posterior(x)
    torch.testing.assert_close(mean, wanted.mean.squeeze(-1), **CLOSE)
    torch.testing.assert_close(covariance, wanted.distribution.covariance_matrix, **CLOSE)


# What torch says the first time anybody makes a sparse tensor, as GPyTorch does for tasks.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_settled_task_is_the_multi_task_models_posterior(generator):
    parts = [rows(n, generator) for n in (7, 20, 15)]
    units = [units_of(part) for part in parts]
    x = torch.cat(
        [torch.cat([p.x, torch.full_like(p.x[:, :1], i)], 1) for i, p in enumerate(parts)]
    )
    model = MultiTaskGP(
        x,
        torch.cat([u.y for u in units]).unsqueeze(-1),
        task_feature=-1,
        train_Yvar=torch.cat([u.noise for u in units]).unsqueeze(-1),
        output_tasks=[0],
        outcome_transform=None,
    )
    for i, mean in enumerate(model.mean_module.base_means):
        mean.constant.data.fill_(0.1 * (i + 1))
    at = torch.rand(4, 6, 3, dtype=torch.float64, generator=generator)
    wanted = model.posterior(at)
    mean, covariance = settled.target_of(model, units[0]).posterior(at)
    torch.testing.assert_close(mean, wanted.mean.squeeze(-1), **CLOSE)
    torch.testing.assert_close(covariance, wanted.distribution.covariance_matrix, **CLOSE)


def test_an_ensemble_is_the_weighted_sum_in_every_tasks_units(generator):
    parts = [rows(n, generator) for n in (10, 14)]
    processes = [settled.single(*single_model(part)) for part in parts]
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    x = torch.rand(6, 3, dtype=torch.float64, generator=generator)
    ensemble = ModelListGP(settled.Ensemble(processes, weights)).posterior(x)
    mean, covariance = 0.0, 0.0
    for part, share in zip(parts, (0.25, 0.75)):
        model, units = single_model(part)
        posterior = model.posterior(x)
        mean = mean + share * (units.shift + units.scale * posterior.mean.squeeze(-1))
        spread = posterior.distribution.covariance_matrix
        covariance = covariance + (share * units.scale) ** 2 * spread
    torch.testing.assert_close(ensemble.mean.squeeze(-1), mean, **CLOSE)
    torch.testing.assert_close(
        ensemble.distribution.covariance_matrix, covariance, rtol=1e-6, atol=1e-11
    )


# BoTorch asks for standardised outcomes; all rows but one are nearly so.
@pytest.mark.filterwarnings("ignore::botorch.exceptions.warnings.InputDataWarning")
def test_the_left_out_loss_is_that_of_models_fitted_without_the_row(generator):
    """The mean loss against BoTorch's own models on all rows but one, 2,048 draws each."""
    part = rows(8, generator)
    model, units = single_model(part)
    target = settled.single(model, units)
    smaller = part.mean[:, 0].unsqueeze(-1) < part.mean[:, 0]
    torch.manual_seed(1)
    losses = settled.left_out_loss(target, smaller).double()
    wanted = 0.0
    for row in range(8):
        kept = torch.arange(8) != row
        other = SingleTaskGP(
            part.x[kept], units.y[kept, None], units.noise[kept, None], outcome_transform=None
        )
        other.load_state_dict(model.state_dict())
        drawn = other.posterior(part.x).rsample(torch.Size([2048])).squeeze(-1)
        wanted += ((drawn[:, row : row + 1] < drawn) ^ smaller[row]).sum(-1).double()
    error = (losses.var() / len(losses) + wanted.var() / len(wanted)).sqrt()
    # Rows are drawn on their own in both, so the spread of a sum is that of the draws.
    assert abs(losses.mean() - wanted.mean()) < 4 * error


def test_weights_go_to_who_ranks_as_the_target_does(generator):
    target, noise = rows(20, generator), rows(30, generator)
    good = rows(30, generator)
    bad = Rows(noise.x, -noise.mean, noise.var)
    settle = lambda part: settled.single(*single_model(part))  # noqa: E731
    few = Rows(*(field[:6] for field in target))
    weights = settled.rank_weights(settle(few), [settle(good), settle(bad)], few.x, few.mean[:, 0])
    assert float(weights.sum()) == pytest.approx(1.0)
    assert weights[0] > 0.5 > weights[1]
    guarded = settled.rank_weights(
        settle(target), [settle(bad)], target.x, target.mean[:, 0], guarded=True
    )
    assert guarded.tolist() == [0.0, 1.0]


# In the first hour only the base is known, and draws of it may be infeasible.
@pytest.mark.filterwarnings("ignore::botorch.exceptions.warnings.BotorchWarning")
@pytest.mark.parametrize("kind", [MultiTask, RankingWeighted])
def test_a_peer_proposes_inside_the_cube_from_the_first_hour(kind):
    world = MemberWorld(0, 2, 0.9)
    peer = kind(world, 0, world.sources(2))
    peer.arms = 2
    for round_ in range(2):
        plan = peer.plan(round_)
        assert len(plan) == 3
        assert plan.theta.min() >= 0
        assert plan.theta.max() <= 1
        for delivery in world.serve(plan):
            peer.tell([delivery.readings])
    assert sorted(peer.fitted) == [0, 1]  # both metrics: what arrived in the first hour counts
