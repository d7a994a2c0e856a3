"""The ranking-weighted ensemble: weights by order alone, sums that are coherent."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.family_of_surfaces import cold, family

from hyperzero_torch.errors import ShapeError
from hyperzero_torch.surrogate import Surrogate
from hyperzero_torch.transfer.model.rgpe import Ensemble, anchored, ensemble, ranking_weights


@pytest.fixture(scope="module")
def parts():
    sources, x, mean, var, truth = family(0.95, num=2, seed=1, noise=0.4)
    models = [Surrogate().fit(s.x, s.mean, s.var) for s in sources]
    return models, cold(x, mean, var), truth


def test_a_good_source_gets_weight_and_a_reversed_one_none(parts):
    models, own, _ = parts
    generator = torch.Generator().manual_seed(0)
    upside_down = cold(models[1].x, -(models[1].residual.T), models[1].noise.T)
    found = ensemble([models[0], upside_down], own, generator)
    assert float(found.weight[0, 0]) > 0.3
    assert float(found.weight[0, 1]) == 0.0
    assert float(found.weight.sum()) == pytest.approx(1.0)


def test_only_the_order_counts(parts):
    models, own, _ = parts
    plain = ensemble(models, own, torch.Generator().manual_seed(0))
    moved = [anchored(model, torch.tensor([0.3, 0.8], dtype=torch.float64)) for model in models]
    same = ensemble(moved, own, torch.Generator().manual_seed(0))
    torch.testing.assert_close(same.weight, plain.weight)


def test_an_anchored_source_is_zero_at_the_base(parts):
    models, _, _ = parts
    base = torch.tensor([0.3, 0.8], dtype=torch.float64)
    mean, var = anchored(models[0], base).marginal(base.unsqueeze(0))
    assert float(mean.abs().max()) < 1e-12
    torch.testing.assert_close(var, models[0].marginal(base.unsqueeze(0))[1])


def test_paths_have_the_marginals_moments(parts):
    models, own, _ = parts
    weight = torch.tensor([[0.3, 0.2, 0.5]], dtype=torch.float64)
    found = Ensemble([*models, own], weight)
    x = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    num = 4000
    paths = found.paths(num, torch.Generator().manual_seed(1))
    drawn = paths(x)
    mean, var = found.marginal(x)
    # Paths share 512 frequencies, so their variance is exact to about one in sixteen.
    error = (var / num).sqrt()
    assert bool(((drawn.mean(0) - mean).abs() < 5 * error).all())
    torch.testing.assert_close(drawn.var(0), var, rtol=0.3, atol=0)
    torch.testing.assert_close(
        found.covariance(x).diagonal(dim1=-2, dim2=-1).T, var, rtol=1e-6, atol=1e-12
    )
    few = paths[2:4]
    assert few.num_paths == 2
    torch.testing.assert_close(few(x), drawn[2:4])
    each = few.each(x[:2].unsqueeze(1).expand(2, 3, 2).contiguous())
    torch.testing.assert_close(each[0, 0], drawn[2, 0])
    assert paths.tile >= 1


def test_the_target_alone_is_the_target(parts):
    models, own, _ = parts
    weight = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    found = Ensemble([*models, own], weight)
    x = torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for a, b in zip(found.marginal(x), own.marginal(x)):
        torch.testing.assert_close(a, b)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 10_000))
def test_weights_are_probabilities(sources, metrics, seed):
    generator = torch.Generator().manual_seed(seed)
    losses = torch.randint(0, 6, (sources + 1, 40, metrics), generator=generator).double()
    weight = ranking_weights(losses)
    assert weight.shape == (metrics, sources + 1)
    assert bool((weight >= 0).all())
    torch.testing.assert_close(weight.sum(1), torch.ones(metrics, dtype=torch.float64))


def test_ties_go_to_the_target():
    losses = torch.ones(3, 10, 1, dtype=torch.float64)
    assert ranking_weights(losses)[0].tolist() == [0.0, 0.0, 1.0]


def test_other_cubes_are_refused(parts):
    _, own, _ = parts
    x = torch.rand(6, 3, dtype=torch.float64)
    other = Surrogate().fit(x, x[:, :1], torch.full((6, 1), 1e-2, dtype=torch.float64))
    with pytest.raises(ShapeError, match="3 dims"):
        ensemble([other], own, torch.Generator().manual_seed(0))
