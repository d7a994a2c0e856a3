"""Fitting four metrics with known noise, from scratch and from the last fit, against BoTorch.

BoTorch has the same kernel (Matern 5/2 with one lengthscale per dimension, scaled) and no priors,
so it maximises the likelihood by which both are compared; ours maximises it times its priors.
"""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from hyperzero_torch.surrogate import Surrogate
from hyperzero_torch.surrogate.kernels import matern52

from . import given
from .conftest import Timed


@pytest.mark.parametrize("n", [300, 1000])
@pytest.mark.parametrize("who", ["cold", "warm", "BoTorch"])
def bench_fits(timed: Timed, who, n):
    n = max(30, timed.size(n))
    seen = given.evidence(n, timed.device)
    question = f"fit, {given.METRICS} metrics, n = {n}"
    rounds = 5 if n < 500 else 2
    if who == "BoTorch":
        pytest.importorskip("botorch")
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        def theirs():
            model = SingleTaskGP(*seen, covar_module=given.botorch_kernel()).to(seen.x)
            likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit_gpytorch_mll(likelihood)
            return model

        model = timed(question, "BoTorch `fit_gpytorch_mll`, cold", "peer", n, theirs, rounds)
        shift, scale = (
            field[0] for field in (model.outcome_transform.means, model.outcome_transform.stdvs)
        )
        kernel = model.covar_module
        per_observation = _likelihood(
            seen,
            kernel.base_kernel.lengthscale.squeeze(-2),
            kernel.outputscale * scale.square(),
            shift + scale * model.mean_module.constant,
        )
        timed.benchmark.extra_info["log marginal likelihood an observation"] = per_observation
        return
    start = None
    if who == "warm":  # an hour ago: a tenth less evidence
        before = given.Evidence(*(field[: n * 9 // 10] for field in seen))
        start = Surrogate().fit(*before).hyperparameters
    run = lambda: Surrogate(start).fit(*seen)  # noqa: E731
    posterior = timed(question, who, "ours", n, run, rounds)
    shift, scale = posterior.standardiser
    lengthscale, outputscale, constant = posterior.hyperparameters
    per_observation = _likelihood(
        seen, lengthscale, outputscale * scale.square(), shift + scale * constant
    )
    timed.benchmark.extra_info["log marginal likelihood an observation"] = per_observation


def _likelihood(seen, lengthscale, outputscale, constant) -> float:
    """Of the data in their own unit, per observation, averaged over metrics."""
    with torch.no_grad():
        k = outputscale[:, None, None] * matern52(seen.x, seen.x, lengthscale)
        factor = torch.linalg.cholesky(k + torch.diag_embed(seen.var.T))
        residual = (seen.mean - constant).T.unsqueeze(-1)
        square = torch.linalg.solve_triangular(factor, residual, upper=False).square().sum((1, 2))
        volume = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        total = -0.5 * (square + volume + len(seen.x) * math.log(2 * math.pi))
    return float(total.mean()) / len(seen.x)
