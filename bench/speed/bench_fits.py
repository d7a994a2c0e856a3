"""Fitting four metrics with known noise, from cold and from last hour's fit, against BoTorch."""

from __future__ import annotations

import warnings

import pytest

from hyperzero_torch.surrogate import Surrogate

from . import given
from .conftest import Timed


@pytest.mark.parametrize("n", [300, 1000])
@pytest.mark.parametrize("who", ["cold", "warm", "BoTorch"])
def bench_fits(timed: Timed, who, n):
    n = max(30, timed.size(n))
    seen = given.evidence(n)
    question = f"fit, {given.METRICS} metrics, n = {n}"
    if who == "BoTorch":
        pytest.importorskip("botorch")
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        def theirs():
            model = SingleTaskGP(*seen)
            likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit_gpytorch_mll(likelihood)
            return model, likelihood

        timed(question, "BoTorch `fit_gpytorch_mll`, cold", "peer", n, theirs, 3)
        return
    start = None
    if who == "warm":  # an hour ago: a tenth less evidence
        before = given.Evidence(*(field[: n * 9 // 10] for field in seen))
        start = Surrogate().fit(*before).hyperparameters
    run = lambda: Surrogate(start).fit(*seen)  # noqa: E731
    timed(question, who, "ours", n, run, 3)
