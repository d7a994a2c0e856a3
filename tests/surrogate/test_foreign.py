"""GPyTorch kernels as surrogates, against dense NumPy and GPyTorch's own marginal likelihood."""

import math

import gpytorch
import numpy as np
import pytest
import torch
from gpytorch.kernels import (
    InducingPointKernel,
    Kernel,
    LinearKernel,
    MaternKernel,
    PeriodicKernel,
    RBFKernel,
    RQKernel,
    ScaleKernel,
    SpectralMixtureKernel,
)
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, GaussianLikelihood
from gpytorch.means import ConstantMean, ZeroMean
from gpytorch.priors import GammaPrior, LogNormalPrior, NormalPrior
from hypothesis import given, settings
from hypothesis import strategies as st
from support.deep_kernel import DeepKernel
from support.quadratic_surrogate import Quadratic

import hyperzero_torch as hz
from hyperzero_torch.surrogate.foreign import CheckedPosterior, choose
from hyperzero_torch.surrogate.foreign.builtin import default_kernel, default_mean
from hyperzero_torch.surrogate.foreign.features import features, has_spectral_density
from hyperzero_torch.surrogate.foreign.likelihood import loss, maximise
from hyperzero_torch.surrogate.foreign.prior import MetricPrior
from hyperzero_torch.testing import example_evidence

SEED = torch.Generator


def frozen(lengthscale=(0.4, 0.7), outputscale=1.3):
    """An RBF kernel whose parameters no fit changes."""
    kernel = ScaleKernel(RBFKernel(ard_num_dims=2)).double()
    kernel.base_kernel.lengthscale = torch.tensor([lengthscale], dtype=torch.float64)
    kernel.outputscale = outputscale
    return kernel.requires_grad_(False)


def dense(x, mean, var, shared, at, standardiser, lengthscale=(0.4, 0.7), outputscale=1.3):
    """Posterior mean and covariance of each metric by the textbook, in NumPy."""
    x, at = x.numpy(), at.numpy()

    def k(a, b):
        d = (a[:, None] - b[None]) / np.array(lengthscale)
        return outputscale * np.exp(-0.5 * (d**2).sum(-1))

    means, covariances = [], []
    for m, (shift, scale) in enumerate(zip(*(f.numpy() for f in standardiser))):
        rows = np.isfinite(mean[:, m].numpy())
        noise = np.diag(var[rows, m].numpy())
        if shared is not None:
            together = shared[m].numpy()[rows][:, rows]
            noise = noise + together - np.diag(np.diag(together))
        system = scale**2 * k(x[rows], x[rows]) + noise
        cross = scale**2 * k(at, x[rows])
        means.append(shift + cross @ np.linalg.solve(system, mean[rows, m].numpy() - shift))
        covariances.append(scale**2 * k(at, at) - cross @ np.linalg.solve(system, cross.T))
    return np.stack(means, -1), np.stack(covariances)


@pytest.mark.parametrize("with_shared", [False, True])
def test_marginals_and_covariances_are_those_of_dense_algebra(with_shared):
    x, mean, var, shared = example_evidence()
    mean[2:6, 1] = torch.nan
    shared = shared if with_shared else None
    posterior = choose((ZeroMean(), frozen()), 2).fit(x, mean, var, shared)
    at = torch.rand(30, 2, generator=SEED().manual_seed(3), dtype=torch.float64)
    expected, covariance = dense(x, mean, var, shared, at, posterior.inner.standardiser)
    got, variance = posterior.marginal(at)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-7, atol=1e-10)
    diagonal = np.diagonal(covariance, axis1=1, axis2=2).T
    np.testing.assert_allclose(variance.numpy(), diagonal, rtol=1e-6, atol=1e-13)
    np.testing.assert_allclose(posterior.covariance(at).numpy(), covariance, rtol=0, atol=1e-12)


def test_conditioning_is_dense_algebra_on_the_other_evidence():
    x, mean, var, shared = example_evidence()
    posterior = choose((ZeroMean(), frozen()), 2).fit(x, mean, var, shared)
    few = posterior.condition(x[:9], mean[:9], var[:9], shared[:, :9, :9])
    expected, _ = dense(
        x[:9], mean[:9], var[:9], shared[:, :9, :9], x, posterior.inner.standardiser
    )
    np.testing.assert_allclose(few.marginal(x)[0].numpy(), expected, rtol=1e-7, atol=1e-10)


def noisy(num=15):
    generator = SEED().manual_seed(2)
    x = torch.rand(num, 2, generator=generator, dtype=torch.float64)
    y = torch.sin(5 * x[:, 0]) + 0.1 * torch.randn(num, generator=generator, dtype=torch.float64)
    return x, y, torch.full((num,), 0.02, dtype=torch.float64)


class Exact(gpytorch.models.ExactGP):
    def __init__(self, x, y, noise, mean, kernel):
        super().__init__(x, y, FixedNoiseGaussianLikelihood(noise))
        self.mean_module, self.covar_module = mean, kernel

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def with_priors():
    length = GammaPrior(torch.tensor(3.0).double(), torch.tensor(6.0).double())
    scale = LogNormalPrior(torch.tensor(0.0).double(), torch.tensor(1.0).double())
    kernel = ScaleKernel(
        RBFKernel(ard_num_dims=2, lengthscale_prior=length), outputscale_prior=scale
    )
    return MetricPrior(default_mean(), kernel)


def test_the_criterion_and_its_slopes_are_those_of_gpytorch():
    x, y, noise = noisy()
    prior = with_priors()
    value = loss(prior, x, y, torch.diag(noise), slopes=True)
    copy = prior.copied()
    model = Exact(x, y, noise, copy.mean_module, copy.kernel)
    criterion = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    model.train()
    total = -criterion(model(x), y) * len(y)
    total.backward()
    assert value == pytest.approx(float(total.detach()), rel=1e-9)
    slopes = {name: p.grad for name, p in copy.named_parameters()}
    for name, parameter in prior.named_parameters():
        torch.testing.assert_close(parameter.grad, slopes[name], rtol=1e-6, atol=1e-8)


def test_shared_errors_are_in_the_criterion():
    x, y, noise = noisy()
    prior = with_priors()
    system = torch.diag(noise) + 0.01
    mean, k = prior.mean(x).detach().numpy(), prior.cross(x, x).detach().numpy()
    normal = torch.distributions.MultivariateNormal(torch.tensor(mean), torch.tensor(k) + system)
    expected = -float(normal.log_prob(y)) - float(prior.log_prior().detach())
    assert loss(prior, x, y, system) == pytest.approx(expected, rel=1e-9)


def test_a_fit_is_a_maximum():
    x, y, noise = noisy(40)
    fitted, succeeded = maximise(with_priors(), x, y, torch.diag(noise))
    assert succeeded
    best = loss(fitted, x, y, torch.diag(noise))
    for seed in range(20):
        other = fitted.copied()
        generator = SEED().manual_seed(seed)
        for parameter in other.parameters():
            step = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.add_(step, alpha=0.2)
        assert loss(other, x, y, torch.diag(noise)) > best - 1e-3


def test_bounds_without_a_transform_are_kept():
    """BoTorch's kernels state bounds for an optimiser with bounds."""
    from gpytorch.constraints import GreaterThan, Interval

    x, y, noise = noisy(40)
    for bounds in (GreaterThan(0.9, transform=None, initial_value=1.0), Interval(0.9, 1.4)):
        kernel = ScaleKernel(RBFKernel(ard_num_dims=2, lengthscale_constraint=bounds))
        fitted, _ = maximise(MetricPrior(default_mean(), kernel), x, y, torch.diag(noise))
        lengthscale = fitted.kernel.base_kernel.lengthscale
        assert float(lengthscale.detach().min()) >= 0.9


KERNELS = {
    "rbf": lambda: ScaleKernel(RBFKernel(ard_num_dims=3)),
    "matern 1/2": lambda: MaternKernel(nu=0.5, ard_num_dims=3),
    "matern 3/2": lambda: ScaleKernel(MaternKernel(nu=1.5)),
    "additive": lambda: ScaleKernel(RBFKernel(active_dims=[2])) + MaternKernel(active_dims=[0, 1]),
    "product": lambda: ScaleKernel(RBFKernel(active_dims=[0]) * MaternKernel(active_dims=[2, 1])),
    "linear": lambda: LinearKernel() + ScaleKernel(RBFKernel()),
    "mixture": lambda: ScaleKernel(SpectralMixtureKernel(num_mixtures=2, ard_num_dims=3)),
    "mixture of few": lambda: (
        SpectralMixtureKernel(1, ard_num_dims=2, active_dims=[0, 2]) * RBFKernel(active_dims=[1])
    ),
    "nested": lambda: ScaleKernel(ScaleKernel(RBFKernel(active_dims=[1])) + LinearKernel()),
}


@pytest.mark.parametrize("name", KERNELS)
def test_features_multiply_to_the_kernel(name):
    """Averaged over draws of the frequencies, within five errors of the average."""
    torch.manual_seed(4)
    kernel = KERNELS[name]().double()
    for parameter in kernel.parameters():
        parameter.data.normal_(0, 0.7)
    prior = MetricPrior(ZeroMean(), kernel).requires_grad_(False)
    x = torch.rand(7, 3, generator=SEED().manual_seed(1), dtype=torch.float64)
    assert has_spectral_density(prior.kernel, 3)
    draws = []
    for seed in range(60):
        phi = features(prior, x, SEED().manual_seed(seed))(x)
        draws.append(phi @ phi.T)
    draws = torch.stack(draws)
    error = draws.std(0) / math.sqrt(len(draws))
    gap = (draws.mean(0) - prior.cross(x, x)).abs()
    assert bool((gap <= 5 * error + 1e-9).all())


@pytest.mark.parametrize("name", KERNELS)
def test_covariances_at_repeated_points_need_no_factor(name):
    """Twenty copies of two points have a singular matrix; a warning is an error here."""
    torch.manual_seed(5)
    kernel = KERNELS[name]().double()
    x = torch.rand(2, 3, generator=SEED().manual_seed(2), dtype=torch.float64).repeat(20, 1)
    cross = MetricPrior(ZeroMean(), kernel).cross(x, x)
    # GPyTorch's own value, where the two sets are not the same and it takes no root.
    usual = kernel(x, torch.cat([x, x[:1]])).to_dense()[:, :-1]
    torch.testing.assert_close(cross, usual, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kernel", [PeriodicKernel(), RQKernel(), RBFKernel() * LinearKernel()])
def test_other_kernels_are_drawn_exactly_at_the_data_and_with_their_variance_elsewhere(kernel):
    prior = MetricPrior(ZeroMean(), kernel).requires_grad_(False)
    assert not has_spectral_density(prior.kernel, 2)
    generator = SEED().manual_seed(1)
    x, at = (torch.rand(8, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    phi = features(prior, x, None)
    torch.testing.assert_close(phi(x) @ phi(x).T, prior.cross(x, x), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(phi(at).square().sum(-1), prior.variance(at))
    # 776 points cover two dimensions: elsewhere it is right, too.
    torch.testing.assert_close(phi(at) @ phi(at).T, prior.cross(at, at), rtol=1e-3, atol=1e-4)


def test_the_kernel_that_is_ours_takes_the_fast_path():
    prior = LogNormalPrior(math.log(0.35 * math.sqrt(2)), 0.6)
    kernel = ScaleKernel(
        MaternKernel(nu=2.5, ard_num_dims=2, lengthscale_prior=prior),
        outputscale_prior=LogNormalPrior(math.log(1.4), 0.7),
    )
    assert choose(kernel, 2) is None
    assert choose((ConstantMean(constant_prior=NormalPrior(0.0, 1.0)), kernel), 2) is None
    assert choose("matern", 2) is None
    assert choose(None, 2) is None
    assert choose(ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=2)), 2) is not None  # no priors
    assert choose((ZeroMean(), kernel), 2) is not None


def test_the_fast_path_is_the_model_that_gpytorch_states():
    """The same posterior, fitted by other code."""
    x, mean, var, shared = example_evidence()
    from hyperzero_torch.surrogate.foreign.model import KernelSurrogate

    prior = MetricPrior(default_mean(), default_kernel(2))
    foreign = KernelSurrogate(lambda _: prior.copied()).fit(x, mean, var, shared)
    ours = hz.Surrogate().fit(x, mean, var, shared)
    at = torch.rand(40, 2, generator=SEED().manual_seed(8), dtype=torch.float64)
    for a, b in zip(foreign.marginal(at), ours.marginal(at)):
        torch.testing.assert_close(a, b, rtol=0.05, atol=2e-5)


class InNumPy(Kernel):
    """Has no slopes."""

    has_lengthscale = False

    def forward(self, x1, x2, diag=False, **params):
        a, b = x1.numpy()[:, None], x2.numpy()
        return torch.as_tensor(np.exp(-np.square(a - b).sum(-1)))


WRONG = {
    "dims": (ScaleKernel(RBFKernel(ard_num_dims=3)), r"ard_num_dims=2"),
    "active": (RBFKernel(active_dims=[4]), r"active_dims below 2"),
    "batch": (RBFKernel(batch_shape=torch.Size([2])), r"leave batch_shape out"),
    "pair": ((RBFKernel(), ZeroMean()), r"is \(mean, kernel\)"),
    "name": ("cubic", r"use a name \(matern, rbf"),
    "reference": ("no.such.module:thing", r"cannot be imported.*beside the study file"),
    "number": (3, r"got int: 3"),
    "nothing": (lambda dims: None, r"must return a GPyTorch kernel"),
    "raises": (lambda dims: 1 / 0, r"ZeroDivisionError.*called with dims"),
    "numpy": (InNumPy(), r"InNumPy cannot be differentiated in x.*write it in torch"),
    "inducing": (
        InducingPointKernel(RBFKernel(), torch.rand(4, 2), GaussianLikelihood()),
        r"InducingPointKernel, an approximation.*hand over its base kernel",
    ),
    "list": ([RBFKernel()], r"got list: \[RBFKernel\( \(raw"),
    "model": (
        Exact(torch.rand(3, 2), torch.rand(3), torch.rand(3), ZeroMean(), RBFKernel()),
        r"got Exact.*hand over what makes the model, not a model of given data",
    ),
    "unfit": (
        type("Unfit", (), {"fit": lambda self, x: x})(),
        r"must take \(x, mean, var, shared\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_a_surrogate_is_one_clear_error(case):
    value, message = WRONG[case]
    with pytest.raises(hz.ConfigError, match=message):
        choose(value, 2)


def test_networks_of_kernels_are_in_evaluation_mode():
    """Else a covariance depends on what is evaluated with it, and on chance."""
    given = DeepKernel(2, torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))
    x, mean, var, shared = example_evidence()
    posterior = choose(given, 2).fit(x, mean, var, shared)
    assert given.training
    at = torch.rand(9, 2, generator=SEED().manual_seed(2), dtype=torch.float64)
    alone = [posterior.marginal(row)[0] for row in at.split(1)]
    torch.testing.assert_close(torch.cat(alone), posterior.marginal(at)[0])


@pytest.mark.parametrize(
    "kernel", [SpectralMixtureKernel(3, ard_num_dims=2), ScaleKernel(RBFKernel(ard_num_dims=2))]
)
def test_the_kernel_of_a_fit_that_leaves_no_variance_is_not_used(kernel):
    """Noise alone: without priors the likelihood is largest next to a variance of 0."""
    generator = SEED().manual_seed(5)
    x = torch.rand(24, 2, generator=generator, dtype=torch.float64)
    mean = 0.02 + 1e-3 * torch.randn(24, 1, generator=generator, dtype=torch.float64)
    posterior = choose(kernel, 2).fit(x, mean, torch.full_like(mean, 1e-6), None)
    assert not posterior.fit_succeeded
    at = torch.rand(50, 2, generator=generator, dtype=torch.float64)
    predicted, var = posterior.marginal(at)
    # The level is known no better than the average of all rows.
    assert float(var.sqrt().min()) > 1e-3 / math.sqrt(24)
    assert float(predicted.mean()) == pytest.approx(0.02, abs=3e-4)


def make(likelihood):
    def factory(x, y, yvar):
        model = Exact(x, y[:, 0], yvar[:, 0], ConstantMean(), ScaleKernel(RBFKernel()))
        model.likelihood = likelihood(yvar[:, 0])
        return model

    return factory


def test_models_that_learn_noise_or_are_not_gaussian_are_refused():
    with pytest.raises(hz.ConfigError, match="learns noise, but noise is known"):
        choose(make(lambda noise: GaussianLikelihood()), 2)
    learning = lambda noise: FixedNoiseGaussianLikelihood(noise, learn_additional_noise=True)  # noqa: E731
    with pytest.raises(hz.ConfigError, match="learns noise, but noise is known"):
        choose(make(learning), 2)
    assert choose(make(FixedNoiseGaussianLikelihood), 2) is not None
    with pytest.raises(hz.ConfigError, match=r"must make a gpytorch\.models\.ExactGP"):
        choose(lambda x, y, yvar: torch.nn.Linear(2, 1), 2)


def test_models_of_botorch():
    models = pytest.importorskip("botorch.models")
    flag = {"_is_fully_bayesian": True}  # a real one needs Pyro
    mixture = type("Mixture", (models.SingleTaskGP,), flag)
    with pytest.raises(hz.ConfigError, match="is a mixture over its hyperparameters"):
        choose(lambda x, y, yvar: mixture(x, y, yvar), 2)
    with pytest.raises(hz.ConfigError, match="learns noise"):
        choose(lambda x, y, yvar: models.SingleTaskGP(x, y), 2)
    posterior = choose(models.SingleTaskGP, 2).fit(*example_evidence())
    assert posterior.fit_succeeded


class FailsBeyondTwentyRows(RBFKernel):
    """Right at the points at which it is tried, and NaN on the evidence."""

    def forward(self, x1, x2, diag=False, **params):
        return super().forward(x1, x2, diag=diag, **params) * (math.nan if len(x1) > 20 else 1.0)


def test_a_fit_that_diverges_is_one_clear_error():
    with pytest.raises(
        hz.FitError, match=r"diverged from each of 4 starts.*give the kernel priors"
    ):
        choose(ScaleKernel(FailsBeyondTwentyRows()), 2).fit(*example_evidence())


def test_transforms_after_which_nothing_is_gaussian_are_refused():
    botorch = pytest.importorskip("botorch")
    log = botorch.models.transforms.outcome.Log()

    def factory(x, y, yvar):
        model = botorch.models.SingleTaskGP(x, y, yvar)
        model.outcome_transform = log
        return model

    with pytest.raises(hz.ConfigError, match=r"outcome transform Log, after which.*not Gaussian"):
        choose(factory, 2)


class Broken(Quadratic):
    """Fails in the given way."""

    def __init__(self, spoil):
        self.spoil = spoil

    def fit(self, *evidence):
        posterior = super().fit(*evidence)
        return self.spoil(posterior) or posterior


def answering(**methods):
    def spoil(posterior):
        for name, method in methods.items():
            setattr(posterior, name, method)

    return spoil


def ones(*shape):
    return torch.ones(*shape, dtype=torch.float64)


def plus_generator(n, generator):
    return lambda x: torch.rand(n, len(x), 2, dtype=torch.float64, generator=generator)


FAILURES = {
    "raises": (lambda posterior: 1 / 0, "ZeroDivisionError"),
    "no methods": (lambda posterior: object(), "has no marginal, covariance, paths, condition"),
    "no pair": (answering(marginal=lambda x: ones(len(x), 2)), "a mean and a variance"),
    "nan": (answering(marginal=lambda x: (ones(len(x), 2) * math.nan, ones(len(x), 2))), "finite"),
    "negative": (answering(marginal=lambda x: (ones(len(x), 2), -ones(len(x), 2))), "negative"),
    "shape": (answering(marginal=lambda x: (ones(len(x)), ones(len(x)))), r"must be \(282, 2\)"),
    "list": (answering(marginal=lambda x: ([1.0], [2.0])), "must be a tensor, got list"),
    "diagonal": (answering(covariance=lambda x: torch.eye(len(x)).double().expand(2, -1, -1)),
                 "not the diagonal"),
    "path": (answering(paths=lambda n, g: lambda x: ones(n, len(x))), "must be"),
    "no path": (answering(paths=lambda n, g: ones(n)), "must be callable"),
    "restless": (answering(paths=plus_generator), "change from call to call"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_a_broken_posterior_is_one_fit_error(case):
    spoil, message = FAILURES[case]
    with pytest.raises(hz.FitError, match=message):
        choose(Broken(spoil), 2).fit(*example_evidence())


def test_the_caller_s_random_numbers_are_not_touched():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    surrogate = choose(Quadratic(), 2)
    surrogate.fit(*example_evidence()).paths(3, SEED().manual_seed(0))
    assert torch.equal(torch.rand(3), expected)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 4), st.integers(3, 9), st.integers(1, 3), st.integers(0, 10**6), st.booleans()
)
def test_any_evidence_has_a_finite_posterior(dims, num, metrics, seed, shared):
    generator = SEED().manual_seed(seed)
    x = torch.rand(num, dims, generator=generator, dtype=torch.float64)
    x[1] = x[0]  # the same point twice
    mean = 1e-3 * torch.randn(num, metrics, generator=generator, dtype=torch.float64)
    mean[2:, 0] = torch.nan
    var = 1e-6 * torch.rand(num, metrics, generator=generator, dtype=torch.float64)
    var[0] = 0.0
    common = torch.full((metrics, num, num), 1e-8, dtype=torch.float64) if shared else None
    if common is not None:
        common[:, 0], common[:, :, 0] = 0.0, 0.0
    posterior = choose("rbf", dims).fit(x, mean, var + 1e-8 * (var > 0), common)
    assert isinstance(posterior, CheckedPosterior)
    mean, var = posterior.marginal(torch.rand(5, dims, generator=generator, dtype=torch.float64))
    assert bool(mean.isfinite().all())
    assert bool((var > 0).all())
