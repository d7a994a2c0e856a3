"""Clouds of shrinking width around the best points so far."""

import itertools

import torch

import hyperzero_torch as hz
from hyperzero_torch.thompson.local_search import WIDTHS, local_search

F64 = torch.float64
SPACE = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0), hz.Int("n", 1, 5)])


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def nearest_to(*targets, kept=1, seen=None):
    """For each target the ``kept`` nearest points; minus the squared distance is the value."""

    def best_rows(x):
        if seen is not None:
            seen.append(x)
        value = -(x - torch.tensor(targets, dtype=F64).unsqueeze(1)).square().sum(-1)
        best = value.topk(kept)
        return best.indices, best.values

    return best_rows


def test_every_search_comes_close_to_its_own_maximum():
    targets = [0.3, 0.7, 0.5], [0.95, 0.05, 0.1]
    best, value = local_search(SPACE, SPACE.uniform(64, gen()), nearest_to(*targets), 200, gen(1))
    assert best.shape == (2, 1, 3)
    assert value.shape == (2, 1)
    assert (best[:, 0] - torch.tensor(targets, dtype=F64)).abs().max() < 0.01
    assert torch.equal(best, SPACE.snap(best))


def test_values_never_fall_from_one_width_to_the_next():
    x, best_rows = SPACE.uniform(16, gen()), nearest_to([0.3, 0.7, 0.5], kept=4)
    values = [local_search(SPACE, x, best_rows, 20, gen(1), WIDTHS[:k])[1] for k in range(4)]
    for before, after in itertools.pairwise(values):
        assert (after >= before).all()
    assert torch.equal(values[0], best_rows(x)[1])  # no width: the best of the points given


def test_the_points_kept_are_centres_in_turn():
    seen = []
    x = SPACE.snap(torch.tensor([[0.2, 0.2, 0.5], [0.8, 0.8, 0.5], [0.0, 0.0, 0.1]], dtype=F64))
    local_search(SPACE, x, nearest_to([0.5, 0.5, 0.5], kept=2, seen=seen), 10, gen(), [1e-6])
    centres, cloud = seen[1][:2], seen[1][2:]
    assert torch.equal(centres.sort(0).values, x[:2])
    torch.testing.assert_close(cloud[0::2], centres[:1].expand(5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(cloud[1::2], centres[1:].expand(5, 3), atol=1e-5, rtol=0)


def test_the_search_is_a_function_of_its_generator():
    x, best_rows = SPACE.uniform(16, gen()), nearest_to([0.3, 0.7, 0.5])
    first, second, third = (local_search(SPACE, x, best_rows, 9, gen(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
