"""Arms that share a control err together: the covariance that evidence claims is the real one.

Rounds with several arms and one control are simulated many times (the repetitions lie on the
metrics axis); tolerances are five standard errors, measured over the repetitions.
"""

import math

import pytest
import torch

from hyperzero_torch.stats import delta, evidence, moments
from hyperzero_torch.stats.exposure import Exposure, exposure, loadings
from hyperzero_torch.study.evidence.bucket import Bucket

f64 = torch.float64
R = 20_000

# (round, candidate, users); the control is candidate 0. Uneven on purpose: candidate 3 comes late,
# and nobody meets everybody.
ARMS = [
    (0, 1, 4000), (0, 2, 9000), (0, 4, 2500),
    (1, 1, 7000), (1, 3, 3000),
    (2, 2, 5000), (2, 3, 8000),
    (3, 1, 3000), (3, 3, 3000), (3, 4, 6000),
]  # fmt: skip
CONTROL_USERS = [3000, 1500, 6000, 2500]
CONTROL_LEVEL = [3.0, 2.0, 4.0, 2.5]  # the hour of the day moves it
LIFT = [0.0, 0.1, -0.2, 0.3, 0.0]
CV = 0.9  # standard deviation of a user over their mean

rounds = torch.tensor([r for r, _, _ in ARMS])
candidates = torch.tensor([c for _, c, _ in ARMS])


def group(level, users, generator):
    """Moments of R independent groups of users, ``(arms, R)``: nearly normal means."""
    level, users = torch.tensor(level, dtype=f64), torch.tensor(users, dtype=f64)
    std = (CV * level).unsqueeze(-1)
    normal = torch.randn(len(level), R, generator=generator, dtype=f64)
    mean = level.unsqueeze(-1) + std / users.sqrt().unsqueeze(-1) * normal
    # The sample variance of so many users has a relative error of sqrt(2 / n).
    wobble = torch.randn(len(level), R, generator=generator, dtype=f64)
    var = std.square() * (1 + (2 / users).sqrt().unsqueeze(-1) * wobble)
    return moments.from_sample(users.unsqueeze(-1).expand(-1, R).clone(), mean, var)


def pool_loading(candidates, rounds, loading, lift, weight, num_candidates):
    """Loadings of all candidates, ``(candidates, rounds, metrics)``."""
    total = evidence.summarise(candidates, lift, weight, num_candidates).weight
    own = torch.arange(len(lift.mean)).unsqueeze(-1).expand(lift.mean.shape)
    weight = weight.expand(lift.mean.shape) if weight.ndim == 2 else weight.unsqueeze(-1)
    exposed = exposure(candidates, rounds, loading, lift, weight, own)
    return loadings(exposed, total, torch.arange(num_candidates))


@pytest.fixture(scope="module", params=["users", "uneven"])
def simulated(request):
    """Pooled means ``(5, R)``, claimed variances, and loadings ``(5, rounds, R)``."""
    generator = torch.Generator().manual_seed(3)
    level = [CONTROL_LEVEL[r] * (1 + LIFT[c]) for r, c, _ in ARMS]
    treatment = group(level, [n for _, _, n in ARMS], generator)
    control = group(CONTROL_LEVEL, CONTROL_USERS, generator)
    control = moments.Moments(*(field[rounds] for field in control))
    lift = delta.ratio(treatment, control)
    # A reading that never arrived takes part in nothing.
    lift = delta.Delta(lift.mean.clone(), lift.var.clone())
    lift.mean[4] = torch.nan
    weight = treatment.count
    if request.param == "uneven":
        weight = weight * torch.linspace(0.3, 3.0, len(ARMS), dtype=f64).unsqueeze(-1)
    pooled = evidence.Evidence(5, R)
    pooled.update(candidates, lift, weight)
    each = delta.control_loading(treatment, control)
    each[4] = torch.nan
    loading = pool_loading(candidates, rounds, each, lift, weight, 5)
    return pooled.mean, pooled.var, loading


def products(mean):
    """Products of two candidates' errors, ``(5, 5, R)``; their average is the covariance."""
    error = mean - mean.mean(-1, keepdim=True)
    return error.unsqueeze(0) * error.unsqueeze(1)


def test_the_covariance_of_two_candidates_is_the_product_of_their_loadings(simulated):
    mean, _, loading = simulated
    real = products(mean)
    error = real.std(-1) / math.sqrt(R)
    claimed = torch.einsum("itr,jtr->ij", loading, loading) / R
    for i in range(1, 5):
        for j in range(1, i):
            assert abs(float(real[i, j].mean() - claimed[i, j])) < 5 * float(error[i, j])
    # The claim is not empty: these are strongly correlated.
    correlation = claimed[1, 4] / (claimed[1, 1] * claimed[4, 4]).sqrt()
    assert float(claimed[1, 4]) > 20 * float(error[1, 4])
    assert 0.4 < float(correlation) < 1
    assert float(claimed[1, 3]) > 10 * float(error[1, 3])


def test_the_variance_of_a_candidate_is_what_its_evidence_says(simulated):
    mean, var, loading = simulated
    real = products(mean)
    common = torch.einsum("itr,itr->i", loading, loading) / R
    for i in range(1, 5):
        error = float(real[i, i].std()) / math.sqrt(R)
        assert abs(float(real[i, i].mean() - var[i].mean())) < 5 * error
        # The control's part is part of it: what remains is the arms' own, and more than nothing.
        assert 0.1 * float(var[i].mean()) < float(common[i]) < 0.95 * float(var[i].mean())


def test_pooled_lifts_are_unbiased(simulated):
    mean, _, _ = simulated
    error = mean.std(-1) / math.sqrt(R)
    for i in range(1, 5):
        assert abs(float(mean[i].mean()) - LIFT[i]) < 5 * float(error[i])


def test_unserved_candidates_and_missing_readings_are_exposed_to_nothing(simulated):
    _, _, loading = simulated
    assert loading.shape == (5, 4, R)
    served = torch.zeros(5, 4, dtype=torch.bool)
    served[candidates, rounds] = True
    served[3, 1] = False  # the reading that never arrived
    assert bool((loading[~served] == 0).all())
    assert bool((loading[served] > 0).all())


def test_two_rounds_without_a_common_control_leave_two_candidates_independent():
    one = torch.ones(2, 1, dtype=f64)
    lift = delta.Delta(one, one)
    loading = pool_loading(torch.tensor([1, 2]), torch.tensor([0, 1]), 0.5 * one, lift, one, 3)[
        ..., 0
    ]
    assert (loading @ loading.T).tolist() == [[0, 0, 0], [0, 0.25, 0], [0, 0, 0.25]]


def test_a_loading_pools_like_the_delta_it_belongs_to():
    """By hand: one candidate, users 1 and 3 in two rounds, loadings 0.4 and 0.8."""
    weight = torch.tensor([[1.0], [3.0]], dtype=f64)
    lift = delta.Delta(torch.zeros(2, 1, dtype=f64), torch.ones(2, 1, dtype=f64))
    loading = pool_loading(
        torch.tensor([0, 0]),
        torch.tensor([0, 1]),
        torch.tensor([[0.4], [0.8]], dtype=f64),
        lift,
        weight,
        1,
    )
    torch.testing.assert_close(loading[0, :, 0], torch.tensor([0.1, 0.6], dtype=f64))


def test_the_square_of_a_loading_is_the_controls_part_of_the_variance():
    treatment = moments.Moments(*(torch.tensor([[v]], dtype=f64) for v in (500.0, 3.0, 900.0)))
    control = moments.Moments(*(torch.tensor([[v]], dtype=f64) for v in (200.0, 2.5, 700.0)))
    exact = moments.Moments(control.count, control.mean, torch.zeros_like(control.m2))
    part = delta.ratio(treatment, control).var - delta.ratio(treatment, exact).var
    torch.testing.assert_close(delta.control_loading(treatment, control).square(), part)


def test_no_rounds_is_no_loading():
    none = torch.zeros(0, 2, dtype=f64)
    empty = torch.zeros(0, dtype=torch.long)
    got = pool_loading(empty, empty, none, delta.Delta(none, none), none, 3)
    assert got.shape == (3, 0, 2)


@pytest.mark.parametrize("split", [0, 7], ids=["one block", "two blocks"])
def test_a_bucket_hands_on_the_outer_product_of_the_rows_asked_for(split):
    """Blocks of rounds have no control in common, so their products add up."""
    generator = torch.Generator().manual_seed(4)
    part = torch.rand(len(ARMS), 2, generator=generator, dtype=f64)
    weight = torch.rand(5, 2, generator=generator, dtype=f64) + 1
    old, new = slice(0, split), slice(split, None)
    exposed = tuple(
        Exposure(candidates[s], rounds[s] - int(rounds[s][0]), part[s])
        for s in ((old, new) if split else (new,))
    )
    given = {"control_loadings": exposed, "weight": weight, "theta": weight}
    bucket = Bucket(**dict.fromkeys(Bucket._fields) | given)
    rows = torch.tensor([4, 1, 2])
    got = bucket.shared(rows)
    assert got.shape == (2, 3, 3)
    loading = torch.zeros(5, 4, 2, dtype=f64)
    loading[candidates, rounds] = part / weight[candidates]
    for m in range(2):
        want = loading[rows, :, m] @ loading[rows, :, m].T
        torch.testing.assert_close(got[m], want, rtol=1e-12, atol=0)
