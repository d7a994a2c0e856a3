"""BoTorch's own functions take our posterior, and ours take BoTorch's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch.thompson import propose, select, select_paths

pytest.importorskip("botorch", reason="needs botorch: pip install 'hyperzero-torch[botorch]'")

from botorch.acquisition import UpperConfidenceBound, qLogNoisyExpectedImprovement
from botorch.acquisition.knowledge_gradient import qKnowledgeGradient
from botorch.acquisition.max_value_entropy_search import qMaxValueEntropy
from botorch.acquisition.objective import (
    GenericMCObjective,
    LinearMCObjective,
    ScalarizedPosteriorTransform,
)
from botorch.fit import fit_gpytorch_mll
from botorch.generation import MaxPosteriorSampling
from botorch.models import ModelListGP, MultiTaskGP, SingleTaskGP, SingleTaskVariationalGP
from botorch.models.deterministic import GenericDeterministicModel
from botorch.models.transforms import Normalize, Standardize
from botorch.models.transforms.input import InputPerturbation, Round, Warp
from botorch.models.transforms.outcome import Bilog, ChainedOutcomeTransform
from botorch.optim import optimize_acqf
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.sampling import SobolQMCNormalSampler
from botorch.utils.test_helpers import get_sample_moments
from botorch.utils.testing import BotorchTestCase
from gpytorch.kernels import PeriodicKernel, ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood, SumMarginalLogLikelihood

from hyperzero_torch.integrations.botorch import BoTorchPosterior, HyperZeroModel, path_model

f64 = torch.float64


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=gen(seed), dtype=f64)


def truth(x):
    """Two metrics of two parameters: one to raise, with its best at (0.7, 0.3); one to guard."""
    best = torch.tensor([0.7, 0.3], dtype=f64)
    return torch.stack([-4 * (x - best).square().sum(-1), 0.5 - x[..., 0]], dim=-1)


def fitted(n=24, noise=0.05, shared=True, scale=1.0, seed=0):
    x = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed).draw(n, dtype=f64)
    y = truth(x) + noise * torch.randn(n, 2, generator=gen(seed), dtype=f64)
    loading = 0.5 * noise * rand(2, n, 1, seed=seed)
    common = loading @ loading.mT if shared else None
    var = torch.full_like(y, noise**2)
    return hz.Surrogate().fit(
        x, scale * y, scale**2 * var, None if common is None else scale**2 * common
    )


def a_problem():
    return hz.Problem(
        space=hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)]),
        base={"a": 0.5, "b": 0.5},
        metrics=["gain", "guard"],
        objective="gain",
        constraints=["guard >= -10%"],
    )


class TestHyperZeroModel(BotorchTestCase):
    """What BoTorch asks of any model, in BoTorch's own test case."""

    def test_a_posterior_has_the_shapes_that_botorch_promises(self):
        posterior = fitted()
        for outputs in ([0, 1], [1]):
            model = HyperZeroModel(posterior, outputs=outputs)
            assert model.num_outputs == len(outputs)
            assert model.batch_shape == torch.Size([])
            for batch in ((), (3,), (2, 3)):
                for q in (1, 4):
                    joint = model.posterior(rand(*batch, q, 2))
                    shape = torch.Size([*batch, q, len(outputs)])
                    assert isinstance(joint, GPyTorchPosterior)
                    assert joint.mean.shape == shape
                    assert joint.variance.shape == shape
                    assert joint.rsample(torch.Size([5])).shape == (5, *shape)
                    assert joint.mean.dtype == f64

    def test_marginals_are_ours(self):
        posterior = fitted()
        x = rand(3, 4, 2)
        joint = HyperZeroModel(posterior).posterior(x)
        mean, var = posterior.marginal(x)
        self.assertAllClose(joint.mean, mean, rtol=1e-9, atol=1e-12)
        self.assertAllClose(joint.variance, var, rtol=1e-5, atol=1e-7)

    def test_the_joint_covariance_is_ours(self):
        posterior = fitted()
        x = rand(2, 6, 2)
        for metric in (0, 1):
            joint = HyperZeroModel(posterior, outputs=[metric]).posterior(x)
            for batch in (0, 1):
                want = posterior.covariance(x[batch])[metric]
                got = joint.distribution.covariance_matrix[batch]
                self.assertAllClose(got, want, rtol=1e-5, atol=1e-8)
        both = HyperZeroModel(posterior).posterior(x[0]).distribution.covariance_matrix
        across = both.reshape(6, 2, 6, 2)  # points by outputs
        self.assertAllClose(across[:, 0, :, 1], torch.zeros(6, 6, dtype=f64))
        self.assertAllClose(across[:, 1, :, 1], posterior.covariance(x[0])[1], 1e-5, 1e-8)

    def test_subsets_and_output_indices_are_the_same_thing(self):
        model = HyperZeroModel(fitted())
        x = rand(5, 2)
        subset = model.subset_output([1]).posterior(x)
        indexed = model.posterior(x, output_indices=[1])
        self.assertAllClose(subset.mean, model.posterior(x).mean[..., 1:])
        self.assertAllClose(subset.mean, indexed.mean)
        self.assertAllClose(subset.variance, indexed.variance)

    def test_a_unit_changes_the_numbers_and_nothing_else(self):
        posterior = fitted()
        x = rand(5, 2)
        fraction, percent = HyperZeroModel(posterior), HyperZeroModel(posterior, unit=0.01)
        self.assertAllClose(percent.posterior(x).mean, 100 * fraction.posterior(x).mean)
        self.assertAllClose(percent.posterior(x).variance, 1e4 * fraction.posterior(x).variance)

    def test_gradients_flow_into_the_points(self):
        model = HyperZeroModel(fitted())

        def mean(x):
            return model.posterior(x).mean

        def covariance(x):
            return model.posterior(x).distribution.covariance_matrix

        x = rand(2, 3, 2).requires_grad_()
        assert torch.autograd.gradcheck(mean, x)
        assert torch.autograd.gradcheck(covariance, x, atol=0.0001)

    def test_a_posterior_transform_is_applied(self):
        model = HyperZeroModel(fitted())
        x, weights = rand(3, 4, 2), torch.tensor([0.3, 2.0], dtype=f64)
        transformed = model.posterior(x, posterior_transform=ScalarizedPosteriorTransform(weights))
        plain = model.posterior(x)
        self.assertAllClose(transformed.mean[..., 0], plain.mean @ weights)
        self.assertAllClose(transformed.variance[..., 0], plain.variance @ weights.square())

    def test_observation_noise_is_added_where_it_is_given(self):
        model = HyperZeroModel(fitted())
        x, noise = rand(3, 4, 2), 0.01 + rand(3, 4, 2, seed=3)
        noisy, plain = model.posterior(x, observation_noise=noise), model.posterior(x)
        self.assertAllClose(noisy.mean, plain.mean)
        self.assertAllClose(noisy.variance, plain.variance + noise)
        same = model.posterior(x, observation_noise=torch.full((1, 2), 0.5, dtype=f64))
        self.assertAllClose(same.variance, plain.variance + 0.5)

    def test_conditioning_is_what_a_fit_of_all_the_data_with_these_hyperparameters_says(self):
        for shared in (True, False):
            posterior = fitted(shared=shared)
            new_x, new_y = rand(3, 2, seed=8), rand(3, 2, seed=9)
            noise = 0.02 + rand(3, 2, seed=10)
            model = HyperZeroModel(posterior, unit=0.1)
            more = model.condition_on_observations(new_x, new_y, noise=noise)
            x = rand(6, 2, seed=11)
            # The textbook update of the joint normal of (f(x), f(new_x)) by new_y.
            for metric in (0, 1):
                single = HyperZeroModel(posterior, 0.1, [metric])
                joint = single.posterior(torch.cat([x, new_x])).distribution
                k = joint.covariance_matrix
                system = k[6:, 6:] + noise[:, metric].diag()
                gain = torch.linalg.solve(system, k[6:, :6]).mT
                mean = joint.mean[:6] + gain @ (new_y[:, metric] - joint.mean[6:])
                cov = k[:6, :6] - gain @ k[6:, :6]
                got = more.subset_output([metric]).posterior(x).distribution
                self.assertAllClose(got.mean, mean, rtol=1e-5, atol=1e-6)
                self.assertAllClose(got.covariance_matrix, cov, rtol=1e-4, atol=1e-6)

    def test_it_is_a_module_that_moves_and_saves_with_its_posterior(self):
        model, other = HyperZeroModel(fitted()), HyperZeroModel(fitted(seed=5))
        other.load_state_dict(model.state_dict())
        x = rand(4, 2)
        self.assertAllClose(other.posterior(x).mean, model.posterior(x).mean)
        assert {b.device.type for b in model.to("meta").buffers()} == {"meta"}


def test_log_noisy_expected_improvement_finds_the_optimum():
    """With BoTorch's own optimiser: where the guardrail lets it, at the truth's best point."""
    posterior = fitted(n=40, noise=0.02)
    model = HyperZeroModel(posterior)
    acquisition = qLogNoisyExpectedImprovement(
        model,
        X_baseline=posterior.x,
        objective=GenericMCObjective(lambda samples, X=None: samples[..., 0]),
        constraints=[lambda samples: 0.0 - samples[..., 1]],  # guard >= 0: a <= 0.5
        sampler=SobolQMCNormalSampler(torch.Size([128]), seed=0),
        prune_baseline=True,
    )
    bounds = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=f64)
    torch.manual_seed(0)
    x, value = optimize_acqf(
        acquisition, bounds, q=2, num_restarts=4, raw_samples=64, options={"maxiter": 60}
    )
    assert x.shape == (2, 2)
    assert bool(value.isfinite())
    true = truth(x)
    best = -4 * 0.2**2  # of a <= 0.5: at (0.5, 0.3)
    assert float(true[:, 1].max()) >= -0.05  # at least one keeps the guardrail, up to its noise
    assert float(true[:, 0].max()) > best - 0.1


def test_max_posterior_sampling_picks_points_as_often_as_our_paths_do():
    """The same law by two ways: joint normals there, pathwise draws here."""
    posterior = fitted(n=12, noise=0.3)
    x = rand(30, 2, seed=2)
    num = 4000
    sampling = MaxPosteriorSampling(
        HyperZeroModel(posterior), LinearMCObjective(torch.tensor([1.0, 0.0], dtype=f64))
    )
    torch.manual_seed(0)
    picked = sampling(x, num_samples=num)
    theirs = (picked.unsqueeze(1) == x).all(-1).double().mean(0)
    ours = posterior.paths(num, gen())(x)[..., 0].argmax(1)
    ours = torch.bincount(ours, minlength=30).double() / num
    # Standard error of a difference of two shares; random features add a little of their own.
    error = (2 * theirs * (1 - theirs) / num).sqrt() + 1 / num
    assert bool(((ours - theirs).abs() < 4 * error + 0.01).all())
    assert float(theirs.max()) > 0.1


def test_many_points_that_all_but_lie_on_each_other_can_be_sampled():
    model = HyperZeroModel(fitted(n=40, noise=0.01))
    centre = torch.tensor([0.5, 0.5], dtype=f64)
    x = centre + 1e-4 * rand(400, 2)
    assert model.posterior(x).rsample(torch.Size([4])).isfinite().all()


def test_small_deltas_need_a_unit_and_the_message_names_one_that_does():
    posterior = fitted(scale=1e-5)
    with pytest.raises(hz.InputError, match="pass unit=") as caught:
        HyperZeroModel(posterior)
    unit = float(str(caught.value).split("unit=")[1].split()[0])
    model = HyperZeroModel(posterior, unit)
    x = rand(7, 2)
    joint = model.posterior(x)
    mean, var = posterior.marginal(x)
    torch.testing.assert_close(unit * joint.mean, mean, rtol=1e-8, atol=0)
    torch.testing.assert_close(unit**2 * joint.variance, var, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (hz.ShapeError, "outputs are", lambda m, x: m.subset_output([5])),
        (hz.ShapeError, "outputs are", lambda m, x: HyperZeroModel(m.belief, outputs=[2])),
        (hz.ShapeError, "expected points", lambda m, x: m.posterior(rand(3, 5))),
        (hz.ShapeError, "expected points", lambda m, x: m.posterior(rand(2))),
        (hz.InputError, "has no meaning", lambda m, x: m.posterior(x, observation_noise=True)),
        (hz.InputError, "needs noise", lambda m, x: m.condition_on_observations(x, rand(3, 2))),
        (
            hz.ShapeError,
            "expected Y and noise",
            lambda m, x: m.condition_on_observations(x, rand(3, 1), noise=rand(3, 1)),
        ),
        (
            hz.InputError,
            "without a batch",
            lambda m, x: m.condition_on_observations(x[None], rand(1, 3, 2), noise=rand(1, 3, 2)),
        ),
        (hz.InputError, "hold variances", lambda m, x: conditioned(m, x, x, -x)),
        (hz.InputError, "hold variances", lambda m, x: conditioned(m, x, x, torch.nan * x)),
        (hz.InputError, "must be finite", lambda m, x: conditioned(m, x, torch.nan * x, x)),
        (hz.InputError, "unit cube", lambda m, x: conditioned(m, 9 * x, x, x)),
        (hz.ShapeError, "got list and", lambda m, x: conditioned(m, x, [[1.0, 2.0]] * 3, x)),
        (hz.InputError, "got noise=float", lambda m, x: conditioned(m, x, x, 0.1)),
        (hz.InputError, "unit cube, got values", lambda m, x: m.posterior(10 * x)),
        (hz.InputError, "unit cube, got values", lambda m, x: m.posterior(torch.nan * x)),
        (hz.ShapeError, "got list", lambda m, x: m.posterior([[0.1, 0.2]])),
        (hz.ShapeError, "got NoneType", lambda m, x: m.posterior(None)),
        (hz.InputError, "acquisitions that need it", lambda m, x: m.fantasize(x, None)),
        (
            hz.InputError,
            "acquisitions that need it",
            lambda m, x: qKnowledgeGradient(first(m), 2)(x),
        ),
        (hz.InputError, "traffic", lambda m, x: qMaxValueEntropy(first(m), x)(x[:, None])),
    ],
)
def test_what_it_cannot_carry_is_refused(error, match, call):
    with pytest.raises(error, match=match):
        call(HyperZeroModel(fitted()), rand(3, 2))


def conditioned(model, x, y, noise):
    return model.condition_on_observations(x, y, noise=noise)


def first(model):
    return model.subset_output([0])


@pytest.mark.parametrize("unit", [0, 0.0, -0.01, torch.nan, torch.inf, True, "pp", None])
def test_a_unit_is_a_positive_number(unit):
    with pytest.raises(hz.InputError, match="unit is a positive number"):
        HyperZeroModel(POSTERIOR, unit)
    with pytest.raises(hz.InputError, match="unit is a positive number"):
        path_model(POSTERIOR.paths(1), unit)


@pytest.mark.parametrize(
    "outputs", [1, [], [2], [-3], [0, 0], [1, -1], [1.0], [True], "0", ["views"]]
)
def test_outputs_are_a_list_of_numbers(outputs):
    for call in (
        lambda: HyperZeroModel(POSTERIOR, outputs=outputs),
        lambda: HyperZeroModel(POSTERIOR).subset_output(outputs),
        lambda: HyperZeroModel(POSTERIOR).posterior(rand(3, 2), output_indices=outputs),
    ):
        with pytest.raises(hz.ShapeError, match="outputs are a list of whole numbers from 0 to 1"):
            call()


def test_outputs_count_from_the_end_too_and_may_be_numpys():
    assert HyperZeroModel(POSTERIOR, outputs=[-1]).outputs == (1,)
    assert HyperZeroModel(POSTERIOR).subset_output(list(np.array([1]))).outputs == (1,)


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: hz.Surrogate(), "got Surrogate: a Surrogate is a way of fitting"),
        (lambda: BoTorchPosterior(a_model(rand(6, 2))), "got BoTorchPosterior: .* already"),
        (lambda: rand(3, 2), r"got \(3, 2\)$"),
        (lambda: None, "got NoneType$"),
    ],
)
def test_it_takes_a_fitted_posterior_of_ours(made, match):
    with pytest.raises(hz.InputError, match="takes a fitted posterior.*" + match):
        HyperZeroModel(made())


@pytest.mark.parametrize("noise", [True, 0.5, 1, None, "0.1"])
def test_observation_noise_is_variances_or_nothing(noise):
    with pytest.raises(hz.InputError, match=f"observation_noise={noise} has no meaning"):
        HyperZeroModel(POSTERIOR).posterior(rand(3, 2), observation_noise=noise)


@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 2), (4, 3, 1)])
def test_observation_noise_of_a_wrong_shape_is_refused(shape):
    model = HyperZeroModel(POSTERIOR)
    with pytest.raises(hz.ShapeError, match=r"here \(3, 2\), or what broadcasts to it; got"):
        model.posterior(rand(3, 2), observation_noise=torch.ones(shape))


@pytest.mark.parametrize("value", [-1e-9, torch.nan, torch.inf])
def test_observation_noise_that_is_no_variance_is_refused(value):
    noise = torch.full((3, 2), value)
    with pytest.raises(hz.InputError, match="finite and not negative"):
        HyperZeroModel(POSTERIOR).posterior(rand(3, 2), observation_noise=noise)


def test_where_nothing_was_observed_conditioning_changes_nothing():
    model, x = HyperZeroModel(POSTERIOR), rand(3, 2)
    nothing = conditioned(model, x, torch.full_like(x, torch.nan), torch.full_like(x, torch.inf))
    at = rand(5, 2, seed=7)
    torch.testing.assert_close(nothing.posterior(at).mean, model.posterior(at).mean)
    torch.testing.assert_close(nothing.posterior(at).variance, model.posterior(at).variance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_points_of_any_dtype_are_answered_in_float64(dtype):
    """GPyTorch rounds variances in float32 up to 1e-6: here they are 1e-8 and less."""
    posterior = fitted(scale=1e-3)
    model = HyperZeroModel(posterior)
    x = rand(3, 2).to(dtype)
    joint = model.posterior(x)
    mean, var = posterior.marginal(x.double())
    assert joint.mean.dtype == joint.rsample().dtype == f64
    assert float(var.max()) < 1e-6
    torch.testing.assert_close(joint.mean, mean, rtol=1e-8, atol=0)
    torch.testing.assert_close(joint.variance, var, rtol=1e-5, atol=0)


def test_an_acquisition_in_float32_is_that_in_float64():
    model = HyperZeroModel(POSTERIOR).subset_output([0])
    acquisition = UpperConfidenceBound(model, beta=2.0)
    x = rand(5, 1, 2)
    single = x.float().requires_grad_()
    torch.testing.assert_close(acquisition(single), acquisition(x), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(acquisition(single).sum(), single)
    assert gradient.dtype == torch.float32
    assert bool((gradient != 0).any())


def test_optimisers_may_step_over_the_edge_by_a_little():
    edge = torch.tensor([[1 + 1e-6, -1e-6]], dtype=f64)
    assert HyperZeroModel(POSTERIOR).posterior(edge).mean.isfinite().all()


# --- paths as a deterministic model -----------------------------------------------------------


def test_one_path_is_a_deterministic_model():
    paths = fitted().paths(3, gen())
    model = path_model(paths[1:2])
    assert isinstance(model, GenericDeterministicModel)
    assert model.num_outputs == 2
    x = rand(4, 5, 2)
    want = paths(x.reshape(-1, 2))[1].reshape(4, 5, 2)
    torch.testing.assert_close(model(x), want)
    torch.testing.assert_close(model.posterior(x).mean, want)
    torch.testing.assert_close(model.subset_output([1])(x), want[..., 1:])
    torch.testing.assert_close(path_model(paths[1:2], unit=0.01)(x), 100 * want)


def test_several_paths_are_a_batch_of_models_with_points_of_their_own():
    paths = fitted().paths(3, gen())
    model = path_model(paths)
    assert model.batch_shape == torch.Size([3])
    x = rand(4, 3, 5, 2)
    value = model(x)
    assert value.shape == (4, 3, 5, 2)
    for p in range(3):
        want = paths(x[:, p].reshape(-1, 2))[p].reshape(4, 5, 2)
        torch.testing.assert_close(value[:, p], want, rtol=1e-9, atol=1e-12)
    common = model(x[0, :1])  # one set of points for all
    torch.testing.assert_close(common, paths(x[0, 0]), rtol=1e-9, atol=1e-12)
    for wrong in (rand(2, 5, 2), rand(5, 2), rand(3, 5, 4)):
        with pytest.raises(hz.ShapeError, match="expected points"):
            model(wrong)
    with pytest.raises(hz.InputError, match="unit cube"):
        model(4 * x)


def test_a_path_model_takes_paths_and_points_of_the_cube():
    for wrong in (POSTERIOR, None, rand(3, 2)):
        with pytest.raises(hz.InputError, match="path_model takes functions drawn"):
            path_model(wrong)
    model = path_model(POSTERIOR.paths(1))
    with pytest.raises(hz.ShapeError, match="expected points"):
        model(rand(3, 5))
    with pytest.raises(hz.InputError, match="unit cube"):
        model(10 * rand(3, 2))


def test_paths_of_botorchs_model_are_a_deterministic_model_too(botorch_models):
    x = rand(5, 2)
    paths = BoTorchPosterior(botorch_models["a list"]).paths(3, gen())
    torch.testing.assert_close(path_model(paths)(x[None]), paths(x), rtol=1e-6, atol=1e-8)


def test_the_moments_of_our_paths_are_those_of_the_posterior_by_botorchs_own_helper():
    posterior = fitted(n=16, noise=0.2)
    num, x = 4000, rand(6, 2, seed=4)
    model = path_model(posterior.paths(num, gen(1)))
    draws = model(x.unsqueeze(0))  # (paths, 6, metrics)
    for metric in (0, 1):
        loc, cov = get_sample_moments(draws[..., metric], torch.Size([num]))
        mean, want = posterior.marginal(x)[0][:, metric], posterior.covariance(x)[metric]
        std = want.diagonal().sqrt()
        assert bool(((loc - mean).abs() < 5 * std / num**0.5 + 0.02 * std).all())
        # Of normals: the variance of a sample covariance is (c_ii c_jj + c_ij^2) / num; 512
        # random features are off by about 1 / sqrt(512) of the prior's variance themselves.
        error = ((std.square().outer(std.square()) + want.square()) / num).sqrt()
        slack = 3 / 512**0.5 * float(std.max()) ** 2
        assert bool(((cov - want).abs() < 5 * error + slack).all())


def test_a_path_can_be_optimised_by_botorch():
    from botorch.acquisition import PosteriorMean

    posterior = fitted(n=40, noise=0.02)
    model = path_model(posterior.paths(1, gen(3))).subset_output([0])
    bounds = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=f64)
    torch.manual_seed(0)
    x, value = optimize_acqf(
        PosteriorMean(model), bounds, q=1, num_restarts=4, raw_samples=64, options={"maxiter": 60}
    )
    assert float(value) >= float(model(rand(500, 2)).max())
    torch.testing.assert_close(x[0], torch.tensor([0.7, 0.3], dtype=f64), rtol=0, atol=0.1)


# --- BoTorch's models as our posterior --------------------------------------------------------


def a_list(x, y):
    models = [SingleTaskGP(x, y[:, m : m + 1], outcome_transform=Standardize(1)) for m in (0, 1)]
    return ModelListGP(*models)


MODELS = {
    "outputs of one model": lambda x, y: SingleTaskGP(x, y, outcome_transform=Standardize(2)),
    "as it is": lambda x, y: SingleTaskGP(x, y, outcome_transform=None),
    "known noise": lambda x, y: SingleTaskGP(x, y, torch.full_like(y, 0.05**2)),
    "normalised": lambda x, y: SingleTaskGP(
        x, y, outcome_transform=Standardize(2), input_transform=Normalize(2)
    ),
    "a list": a_list,
}


@pytest.fixture(scope="module")
def botorch_models():
    x = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(20, dtype=f64)
    y = truth(x) + 0.05 * torch.randn(20, 2, generator=gen(), dtype=f64)
    made = {}
    with warnings.catch_warnings():  # on data that is not standardised, where that is the case
        warnings.simplefilter("ignore")
        for name, make in MODELS.items():
            model = make(x, y)
            listed = isinstance(model, ModelListGP)
            mll = SumMarginalLogLikelihood if listed else ExactMarginalLogLikelihood
            made[name] = fit_gpytorch_mll(mll(model.likelihood, model)).model
    return made


@pytest.mark.parametrize("name", MODELS)
def test_its_marginals_are_botorchs(botorch_models, name):
    model = botorch_models[name]
    posterior = BoTorchPosterior(model)
    assert posterior.num_metrics == 2
    assert posterior.x.shape == (20, 2)
    assert float(posterior.x.min()) >= 0
    assert float(posterior.x.max()) <= 1
    x = rand(3, 7, 2)
    mean, var = posterior.marginal(x)
    want = model.posterior(x)
    torch.testing.assert_close(mean, want.mean.detach(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(var, want.variance.detach(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_its_paths_have_the_models_moments(botorch_models, name):
    posterior = BoTorchPosterior(botorch_models[name])
    num, x = 600, rand(5, 2, seed=4)
    paths = posterior.paths(num, gen(2))
    assert paths.num_paths == num
    draws = paths(x)
    assert draws.shape == (num, 5, 2)
    mean, var = posterior.marginal(x)
    # Five standard errors, and what 1024 random features of each group of 64 paths are off by.
    assert bool(((draws.mean(0) - mean).abs() < (5 / num**0.5 + 0.05) * var.sqrt()).all())
    ratio = draws.var(0) / var
    assert bool(((ratio - 1).abs() < 5 * (2 / num) ** 0.5 + 0.1).all())


@pytest.mark.parametrize("name", ["outputs of one model", "a list"])
def test_its_paths_are_botorchs_own_joint_samples(botorch_models, name):
    """Means and covariances, over points and over metrics, of paths and of ``rsample``."""
    model, x = botorch_models[name], rand(5, 2, seed=4)
    ours, theirs = 1920, 8000
    draws = BoTorchPosterior(model).paths(ours, gen(2))(x).flatten(1)
    torch.manual_seed(0)
    with torch.no_grad():
        samples = model.posterior(x).rsample(torch.Size([theirs])).flatten(1)
    std, want = samples.std(0), torch.cov(samples.T)
    wide = std.outer(std)
    # Five standard errors of a difference of two estimates, for the covariance of normals
    # sqrt((c_ii c_jj + c_ij^2) (1/n + 1/n')); 30 groups of 1024 features add a little of their own.
    each = (1 / ours + 1 / theirs) ** 0.5
    assert bool(((draws.mean(0) - samples.mean(0)).abs() < (5 * each + 0.02) * std).all())
    error = (wide.square() + want.square()).sqrt() * each
    assert bool(((torch.cov(draws.T) - want).abs() < 5 * error + 0.03 * wide).all())


@pytest.mark.parametrize("name", ["known noise", "a list"])
def test_candidates_win_as_often_as_under_botorchs_own_thompson_sampling(botorch_models, name):
    """Algorithm 1 on joint draws against ``MaxPosteriorSampling``; on marginals against rsample."""
    model, x, num = botorch_models[name], rand(30, 2, seed=2), 1920
    problem = hz.Problem(a_problem().space, {"a": 0.5, "b": 0.5}, ["gain", "guard"], "gain")
    posterior = BoTorchPosterior(model)
    objective = LinearMCObjective(torch.tensor([1.0, 0.0], dtype=f64))
    torch.manual_seed(0)
    with torch.no_grad():
        picked = MaxPosteriorSampling(model, objective)(x, num_samples=num)
        alone = model.posterior(x.unsqueeze(1)).rsample(torch.Size([num]))[:, :, 0, 0].argmax(1)
    joint = (picked.unsqueeze(1) == x).all(-1).double().mean(0)
    apart = torch.bincount(alone, minlength=30).double() / num
    by_paths = select_paths(posterior.paths(num, gen()), x, problem)
    by_marginals = select(*posterior.marginal(x), problem, num, gen())
    for chosen, theirs in ((by_paths, joint), (by_marginals, apart)):
        ours = chosen.counts.double() / num
        error = ((theirs * (1 - theirs) + ours * (1 - ours)) / num).sqrt() + 1 / num
        assert bool(((ours - theirs).abs() < 4 * error + 0.01).all())
        assert float(theirs.max()) > 0.1


@pytest.mark.filterwarnings("ignore:The model inputs are of type torch.float32")
def test_a_model_in_float32_is_asked_in_float64():
    """In float32 the paths' data correction would lose most of what is known well."""
    x = rand(20, 2)
    model = a_model(x.float(), noise=0.01)
    with torch.no_grad():
        model.eval().posterior(x[:3].float())  # leaves caches in float32 behind
    posterior = BoTorchPosterior(model)
    assert posterior.x.dtype == f64
    want = BoTorchPosterior(a_model(x, noise=0.01))
    for got, right in zip(posterior.marginal(rand(9, 2)), want.marginal(rand(9, 2)), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-2, atol=1e-4)
    num = 640
    draws = posterior.paths(num, gen())(x)
    ratio = draws.var(0) / posterior.marginal(x)[1]
    assert bool(((ratio - 1).abs() < 5 * (2 / num) ** 0.5 + 0.1).all())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", MODELS)
def test_paths_are_functions_whatever_way_they_are_asked(botorch_models, name):
    """Together, a few of them, each at points of its own: the same values; seeded, the same again.

    130 paths are two groups and a bit.
    """
    posterior = BoTorchPosterior(botorch_models[name])
    x = rand(4, 2)
    paths = posterior.paths(130, gen(2))
    values = paths(x)
    part = paths[60:129][3:]
    assert part.num_paths == 66
    torch.testing.assert_close(part(x), values[63:129], rtol=1e-9, atol=1e-9)
    each = part.each(x.expand(66, 4, 2))
    torch.testing.assert_close(each, values[63:129], rtol=1e-6, atol=1e-8)
    state = torch.get_rng_state()
    torch.testing.assert_close(posterior.paths(130, gen(2))(x), values, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(posterior.paths(130, gen(3))(x), values)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("draws", ["joint", "marginal"])
def test_our_kernels_tune_with_botorchs_model(botorch_models, name, draws):
    """Algorithm 1 gives most traffic to points near the best feasible one; 3 proposes there."""
    posterior, problem = BoTorchPosterior(botorch_models[name]), a_problem()
    few = propose(posterior, problem, 256, 6, gen(), draws, num_starts=2)
    assert few.x.shape == (6, 2)
    assert bool(few.feasible.all())
    if draws == "joint":  # a <= 0.6 is feasible, so the best is (0.6, 0.3)
        best = torch.tensor([0.6, 0.3], dtype=f64)
        assert float((few.x - best).norm(dim=1).median()) < 0.25
        x = rand(40, 2)
        chosen = select_paths(posterior.paths(200, gen(1)), x, problem)
        assert int(chosen.counts.sum()) == 200
        mean = (chosen.counts.double() @ x) / 200
        assert float((mean - best).norm()) < 0.25


def test_a_gradient_reaches_the_points(botorch_models):
    paths = BoTorchPosterior(botorch_models["a list"]).paths(2, gen())
    x = rand(2, 3, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(paths.each(x).sum(), x)
    assert bool((gradient.abs() > 0).all())


def test_the_users_model_is_left_alone(botorch_models):
    model = botorch_models["as it is"].train()
    needs = [p.requires_grad for p in model.parameters()]
    BoTorchPosterior(model).marginal(rand(3, 2))
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == needs


def a_model(x, noise=0.05, **kwargs):
    y = x.square().sum(-1, keepdim=True)
    y = (y - y.mean()) / y.std()
    return SingleTaskGP(x, y, torch.full_like(y, noise**2), **kwargs)


def multi_task(x):
    tasks = torch.cat([x, (torch.arange(len(x)) % 2).double().unsqueeze(1)], dim=1)
    return MultiTaskGP(tasks, rand(len(x), 1), task_feature=-1, output_tasks=[0])


UNFIT = {
    "multi-task": (multi_task, "got MultiTaskGP"),
    "batch": (lambda x: SingleTaskGP(rand(3, 6, 2), rand(3, 6, 1)), r"of batch shape \(3,\)"),
    "list of two outputs": (lambda x: ModelListGP(SingleTaskGP(x, rand(6, 2))), "one output each"),
    "list of multi-task": (lambda x: ModelListGP(multi_task(x)), "got ModelListGP of .'MultiTask"),
    "list in a list": (lambda x: ModelListGP(ModelListGP(a_model(x))), "of .'ModelListGP'"),
    "variational": (lambda x: SingleTaskVariationalGP(x, rand(6, 1)), "got SingleTaskVariational"),
    "empty list": (lambda x: ModelListGP(), r"got ModelListGP of \[\]"),
    "deterministic": (lambda x: GenericDeterministicModel(lambda x: x), "got GenericDetermin"),
    "ours": (lambda x: POSTERIOR, "got Posterior"),
    "none": (lambda x: None, "got NoneType"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_models_that_cannot_be_carried_are_refused(kind):
    make, match = UNFIT[kind]
    with warnings.catch_warnings():  # BoTorch's own, about data that are not standardised
        warnings.simplefilter("ignore")
        model = make(rand(6, 2))
    with pytest.raises(hz.InputError, match="BoTorchPosterior takes a SingleTaskGP.*" + match):
        BoTorchPosterior(model)


@pytest.mark.filterwarnings("ignore:Data .outcome observations. is not standardized")
@pytest.mark.parametrize(
    ("transforms", "match"),
    [
        ({"input_transform": InputPerturbation(0.1 * rand(2, 2))}, "maps one point to several"),
        ({"outcome_transform": Bilog()}, "Bilog, is not linear"),
        (
            {"outcome_transform": ChainedOutcomeTransform(a=Standardize(1), b=Bilog())},
            "ChainedOutcomeTransform, is not linear",
        ),
    ],
)
def test_transforms_that_cannot_be_carried_are_refused(transforms, match):
    x = rand(6, 2)
    single = SingleTaskGP(x, x.sum(-1, keepdim=True), **transforms)
    for model in (single, ModelListGP(a_model(x), single)):
        with pytest.raises(hz.InputError, match=match):
            BoTorchPosterior(model)


@pytest.mark.parametrize(
    "transform",
    [Normalize(2), Round(integer_indices=[0]), Warp(d=2, indices=[0, 1])],
    ids=lambda transform: type(transform).__name__,
)
def test_input_transforms_are_the_models_own_business(transform):
    x = rand(12, 2)
    model = a_model(x, input_transform=transform)
    posterior = BoTorchPosterior(model)
    at = rand(7, 2, seed=6)
    want = model.eval().posterior(at)
    mean, var = posterior.marginal(at)
    torch.testing.assert_close(mean, want.mean.detach(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(var, want.variance.detach(), rtol=1e-5, atol=1e-8)
    num = 640
    draws = posterior.paths(num, gen())(at)
    assert bool(((draws.mean(0) - mean).abs() < (5 / num**0.5 + 0.05) * var.sqrt()).all())


def test_the_models_of_a_list_are_over_the_same_cube():
    x = rand(6, 2)
    with pytest.raises(hz.ShapeError, match=r"over \[2, 1\] dims"):
        BoTorchPosterior(ModelListGP(a_model(x), a_model(x[:, :1])))
    raw = a_model(10 * x, input_transform=Normalize(2))
    with pytest.raises(hz.InputError, match="unit cube; fit it to"):
        BoTorchPosterior(ModelListGP(a_model(x), raw))


def test_a_kernel_without_features_has_marginals_and_no_paths():
    model = a_model(rand(12, 2), covar_module=ScaleKernel(PeriodicKernel()))
    posterior = BoTorchPosterior(model)
    with pytest.raises(hz.InputError, match=r'PeriodicKernel.*draws="marginal"'):
        posterior.paths(2)
    problem = hz.Problem(a_problem().space, {"a": 0.5, "b": 0.5}, ["gain"], "gain")
    assert propose(posterior, problem, 64, 3, gen(), "marginal").x.shape == (3, 2)


def test_paths_refuse_what_ours_refuse(botorch_models):
    posterior = BoTorchPosterior(botorch_models["a list"])
    for number in (0, -1, 2.5, "3"):
        with pytest.raises(hz.ShapeError, match="at least 1"):
            posterior.paths(number)
    for points in (rand(3, 5), [[0.1, 0.2]], None):
        with pytest.raises(hz.ShapeError, match="expected points"):
            posterior.marginal(points)
    for points in (rand(3, 5), rand(2), rand(2, 3, 2)):
        with pytest.raises(hz.ShapeError, match=r"expected points \(N, 2\)"):
            posterior.paths(2)(points)
    paths = posterior.paths(3, gen())
    with pytest.raises(hz.ShapeError, match="by slices"):
        paths[1]
    with pytest.raises(hz.ShapeError, match="expected points"):
        paths.each(rand(2, 4, 2))
    with pytest.raises(hz.ShapeError, match="expected points"):
        paths.each(rand(3, 4, 5))


@settings(max_examples=20, deadline=None)
@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    q=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    unit=st.sampled_from([1e-3, 1.0, 10.0]),
)
def test_any_points_get_a_proper_joint_normal(batch, q, seed, unit):
    model = HyperZeroModel(POSTERIOR, unit)
    x = rand(*batch, q, 2, seed=seed)
    joint = model.posterior(x)
    covariance = joint.distribution.covariance_matrix
    assert torch.equal(covariance, covariance.mT) or torch.allclose(
        covariance, covariance.mT, rtol=1e-9, atol=1e-12
    )
    assert int(torch.linalg.cholesky_ex(covariance).info.abs().max()) == 0
    mean, _ = POSTERIOR.marginal(x)
    torch.testing.assert_close(unit * joint.mean, mean, rtol=1e-8, atol=1e-10)


POSTERIOR = fitted()


def test_a_model_in_the_users_units_is_refused():
    x = 10 * torch.rand(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    raw = SingleTaskGP(x, x.sum(-1, keepdim=True), input_transform=Normalize(2))
    with pytest.raises(hz.InputError, match=r"unit cube; fit it to space.to_unit\(theta\)"):
        BoTorchPosterior(raw)
