"""The lift against a million simulated experiments: ours is unbiased, Eq. 3.2 as printed is not.

Notation: R = true x / true y, the true lift is R - 1; e0 = vy / (n0 y^2) and e = vx / (n x^2) are
the squared relative errors of the two sample means. Series in 1/n of what is simulated, for
normal means (z = relative error of the control's mean: E z^2 = e0, E z^4 = 3 e0^2):

    E[x / y]                   = R (1 + e0 + 3 e0^2 + ...)             the observed ratio
    E[our delta mean]          = R (1 - 3 e0^2) - 1                    bias of second order only
    E[with the printed sign]   = R (1 + 2 e0 + 9 e0^2) - 1             bias of first order
    E[our var] - Var[our mean] = R^2 (3 e e0 + 8 e0^2)                 second order, conservative

In each, the next term is about 10 e0 times the one before it. For skewed users (skewness s,
coefficient of variation c) y and vy are correlated, which adds 2 s c^3 / n0^2 to the mean's bias.
All tolerances are five standard errors of the simulation, plus that next term.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from hyperzero_torch.stats import delta, moments

DRAWS = 10**6


class Experiments(NamedTuple):
    """What a million experiments saw, ``(draws,)`` each, and the truth behind them."""

    n: int
    x: np.ndarray
    vx: np.ndarray
    n0: int
    y: np.ndarray
    vy: np.ndarray
    true_ratio: float
    e: float
    e0: float
    skew_term: float  # 2 s c^3 / n0^2

    @property
    def lift(self) -> float:
        return self.true_ratio - 1


def normal_experiments(n: int, n0: int, level: float, std: float, std0: float, seed: int):
    """Sample means and variances of normal users, drawn directly: normal and scaled chi-square."""
    rng, ratio = np.random.default_rng(seed), 1.2
    x = level * ratio + std / np.sqrt(n) * rng.standard_normal(DRAWS)
    y = level + std0 / np.sqrt(n0) * rng.standard_normal(DRAWS)
    vx = std**2 * rng.chisquare(n - 1, DRAWS) / (n - 1)
    vy = std0**2 * rng.chisquare(n0 - 1, DRAWS) / (n0 - 1)
    e, e0 = std**2 / (n * (level * ratio) ** 2), std0**2 / (n0 * level**2)
    return Experiments(n, x, vx, n0, y, vy, ratio, e, e0, 0.0)


def user_experiments(draw_users, cv2: float, skew: float, n: int, n0: int, seed: int):
    """A few skewed users each, every one of them simulated; ``draw_users(rng, ratio, size)``."""
    rng, ratio, tile = np.random.default_rng(seed), 1.2, 50_000
    seen = []
    for _ in range(DRAWS // tile):
        users, users0 = draw_users(rng, ratio, (n, tile)), draw_users(rng, 1.0, (n0, tile))
        columns = (users.mean(0), users.var(0, ddof=1), users0.mean(0), users0.var(0, ddof=1))
        seen.append(columns)
    x, vx, y, vy = map(np.concatenate, zip(*seen))
    e, e0 = float(vx.mean() / (n * x.mean() ** 2)), cv2 / n0
    return Experiments(n, x, vx, n0, y, vy, ratio, e, e0, 2 * skew * cv2**1.5 / n0**2)


def gamma_users(rng: np.random.Generator, ratio: float, size: tuple[int, int]) -> np.ndarray:
    return ratio * rng.standard_gamma(2.0, size)  # cv^2 = 1/2, skewness sqrt(2)


def poisson_users(rng: np.random.Generator, ratio: float, size: tuple[int, int]) -> np.ndarray:
    return rng.poisson(3.0 * ratio, size).astype(np.float64)  # cv^2 = 1/3, skewness 1 / sqrt(3)


MAKERS = {
    # Unlike coefficients of variation: with equal ones, swapping the group sizes changes nothing.
    "small": lambda: normal_experiments(40, 20, 3.0, 1.2, 1.5, seed=11),
    "large": lambda: normal_experiments(50_000, 20_000, 0.05, 0.06, 0.1, seed=12),
    "few gamma users": lambda: user_experiments(gamma_users, 1 / 2, 2**0.5, 30, 20, seed=13),
    "few Poisson users": lambda: user_experiments(poisson_users, 1 / 3, 3**-0.5, 15, 10, seed=14),
}


@pytest.fixture(scope="module", params=MAKERS)
def any_users(request: pytest.FixtureRequest) -> Experiments:
    return MAKERS[request.param]()


@pytest.fixture(scope="module", params=["small", "large"])
def normal_users(request: pytest.FixtureRequest) -> Experiments:
    return MAKERS[request.param]()


def ours(s: Experiments) -> tuple[np.ndarray, np.ndarray]:
    """``delta.ratio`` over all experiments in one call, ``(draws, arms = 1, metrics = 1)``."""

    def side(n: int, mean: np.ndarray, var: np.ndarray) -> moments.Moments:
        return moments.from_sample(
            torch.tensor(n), *(torch.from_numpy(t)[:, None, None] for t in (mean, var))
        )

    got = delta.ratio(side(s.n, s.x, s.vx), side(s.n0, s.y, s.vy))
    return got.mean.flatten().numpy(), got.var.flatten().numpy()


MISPRINTS = ("minus one", "control's group size", "swapped sizes", "sign")


def printed(s: Experiments, *misprints: str) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 3.2 with the given misprints, and correct where none is given."""
    correction = s.vy / s.y**2 / (1 if "control's group size" in misprints else s.n0)
    sign = 1 if "sign" in misprints else -1
    mean = s.x / s.y * (1 + sign * correction) - (0 if "minus one" in misprints else 1)
    n, n0 = (s.n0, s.n) if "swapped sizes" in misprints else (s.n, s.n0)
    return mean, s.vx / (n * s.y**2) + s.x**2 * s.vy / (n0 * s.y**4)


def bias(estimate: np.ndarray, truth: float) -> tuple[float, float]:
    """Mean error and the simulation's standard error of it."""
    return float(estimate.mean() - truth), float(estimate.std() / np.sqrt(len(estimate)))


def var_bias(mean: np.ndarray, var: np.ndarray) -> tuple[float, float]:
    """Mean claimed variance less the true variance of the mean, and its standard error."""
    return bias(var - (mean - mean.mean()) ** 2, 0.0)


def test_the_mean_is_unbiased_to_first_order(any_users: Experiments) -> None:
    s = any_users
    off, error = bias(ours(s)[0], s.lift)
    second_order = s.true_ratio * (-3 * s.e0**2 + s.skew_term)
    next_term = 10 * s.e0 * s.true_ratio * (3 * s.e0**2 + s.skew_term)
    assert abs(off - second_order) < 5 * error + next_term


def test_the_variance_is_that_of_the_mean(any_users: Experiments) -> None:
    s = any_users
    mean, var = ours(s)
    off, error = var_bias(mean, var)
    second_order = s.true_ratio**2 * (3 * s.e * s.e0 + 8 * s.e0**2)
    if s.skew_term:  # more terms of that order for skewed users: only its size is claimed
        assert abs(off) < 5 * error + 2 * second_order
    else:
        assert abs(off - second_order) < 5 * error + 15 * s.e0 * second_order
    assert abs(off) < 0.15 * mean.var(), "nowhere here is the variance far off"


def test_intervals_cover_the_true_lift(any_users: Experiments) -> None:
    """95 % within the simulation's error at large n, and within a few points at 10 users."""
    s = any_users
    mean, var = ours(s)
    covered = np.mean(np.abs(mean - s.lift) < 1.959964 * np.sqrt(var))
    error = np.sqrt(0.95 * 0.05 / DRAWS)
    # A normal quantile where t's belongs costs 2 phi(z) (z^3 + z) / (4 n0) = 0.28 / n0; the
    # skewness of a ratio about as much again.
    assert abs(covered - 0.95) < 5 * error + 0.6 / s.n0


def test_the_sign_as_printed_is_biased(any_users: Experiments) -> None:
    """Even with the other three misprints mended; too high, by twice the second-order term."""
    s = any_users
    off, error = bias(printed(s, "sign")[0], s.lift)
    assert off > 20 * error
    next_term = s.true_ratio * (9 * s.e0**2 + s.skew_term)
    assert abs(off - s.true_ratio * 2 * s.e0) < 5 * error + 2 * next_term
    assert abs(bias(ours(s)[0], s.lift)[0]) < 0.1 * off


def test_the_ratio_without_correction_is_biased(any_users: Experiments) -> None:
    """Which is why the term is subtracted: x / y is already too high by it."""
    s = any_users
    off, error = bias(s.x / s.y - 1, s.lift)
    assert off > 10 * error


def test_eq_3_2_as_printed_is_biased(normal_users: Experiments) -> None:
    s = normal_users
    mean, var = printed(s, *MISPRINTS)
    off, error = bias(mean, s.lift)
    assert off > 1000 * error
    # 1 for the missing -1, and the control's variance of one user, not of their mean
    assert off == pytest.approx(1 + s.true_ratio * s.n0 * s.e0, rel=0.15)
    off, error = var_bias(ours(s)[0], var)
    assert abs(off) > 20 * error
    swapped = s.true_ratio**2 * (s.e * s.n / s.n0 + s.e0 * s.n0 / s.n - s.e - s.e0)
    assert off == pytest.approx(swapped, rel=0.3)


@pytest.mark.parametrize("misprint", MISPRINTS)
def test_each_misprint_alone_is_biased(normal_users: Experiments, misprint: str) -> None:
    s = normal_users
    mean, var = printed(s, misprint)
    if misprint == "swapped sizes":
        off, error = var_bias(mean, var)
    else:
        off, error = bias(mean, s.lift)
    assert abs(off) > 20 * error


def test_the_mended_formula_is_ours(normal_users: Experiments) -> None:
    """So that what is shown of ``printed`` is shown of the formula, not of this file."""
    for got, want in zip(ours(normal_users), printed(normal_users)):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
