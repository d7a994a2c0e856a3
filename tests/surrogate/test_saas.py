"""Mixtures over hyperparameters: moments by hand; the sampler where it is installed."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from gpytorch.kernels import RBFKernel, ScaleKernel
from gpytorch.means import ZeroMean
from support.cron_platform import Platform
from support.small_study import CONFIG, make

import hyperzero_torch as hz
from hyperzero_torch.surrogate import Saas
from hyperzero_torch.surrogate.foreign import CheckedPosterior, choose
from hyperzero_torch.surrogate.foreign.mixture import MixturePosterior
from hyperzero_torch.testing import SurrogateContract, example_evidence

IS_INSTALLED = all(importlib.util.find_spec(name) for name in ("botorch", "jax", "numpyro"))
# The tests' environment has no JAX. With it these tests take four minutes, most of them to compile.
needs_sampler = pytest.mark.skipif(
    not IS_INSTALLED, reason="JAX and NumPyro are missing: pip install 'hyperzero-torch[saas]'"
)


def kernel(lengthscale):
    scaled = ScaleKernel(RBFKernel()).double()
    scaled.base_kernel.lengthscale = lengthscale
    return ZeroMean(), scaled.requires_grad_(False)


class Mixture:
    """Three lengthscales, equally likely."""

    def fit(self, *evidence):
        parts = [choose(kernel(length), 2).fit(*evidence).inner for length in (0.2, 0.4, 0.9)]
        return MixturePosterior(parts)


class TestAMixtureOfKernels(SurrogateContract):
    def make_surrogate(self):
        return Mixture()


def test_moments_are_those_of_the_mixture():
    evidence = example_evidence()
    parts = [choose(kernel(length), 2).fit(*evidence) for length in (0.2, 0.4, 0.9)]
    mixture = Mixture().fit(*evidence)
    at = torch.rand(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = np.stack([p.marginal(at)[0].numpy() for p in parts])
    variances = np.stack([p.marginal(at)[1].numpy() for p in parts])
    mean, var = mixture.marginal(at)
    np.testing.assert_allclose(mean, means.mean(0), rtol=1e-10)
    np.testing.assert_allclose(var, variances.mean(0) + means.var(0), rtol=1e-8)
    joint = mixture.covariance(at)
    np.testing.assert_allclose(joint.diagonal(dim1=1, dim2=2), var.T, rtol=1e-6, atol=1e-14)


def test_a_path_is_one_process_s_path():
    """Far from the data its roughness is that of one lengthscale, and all of them occur."""
    x, mean, var, _ = example_evidence()
    mixture = Mixture().fit(x[:2], mean[:2], var[:2], None)
    paths = mixture.paths(60, torch.Generator().manual_seed(0))
    assert len(paths._drawn) == 3
    assert sorted(torch.cat(paths._places).tolist()) == list(range(60))
    line = torch.linspace(0, 1, 101, dtype=torch.float64)
    values = paths(torch.stack([line, line], dim=-1))[..., 0]
    roughness = values.diff(dim=-1).square().mean(-1) / values.var(-1)
    groups = [roughness[at].median() for at in paths._places]
    assert float(groups[0]) > float(groups[1]) > float(groups[2])


def test_settings_are_checked_and_described():
    with pytest.raises(hz.ConfigError, match="warmup must be a whole number >= 8, got 2"):
        Saas(warmup=2)
    with pytest.raises(hz.ConfigError, match="at least 2 draws to average, got 4 / 4"):
        Saas(samples=4, thinning=4)
    assert Saas(seed=1).descriptor != Saas().descriptor


def test_without_the_sampler_there_is_one_error_that_names_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "hyperzero_torch.surrogate.saas.find_spec",
        lambda name: None if name == "numpyro" else find("sys"),
    )
    message = r"'saas' needs numpyro, which is not installed.*hyperzero-torch\[saas\]"
    for given in ("saas", Saas()):
        with pytest.raises(hz.MissingExtraError, match=message):
            choose(given, 2)
    assert "jax" not in sys.modules or IS_INSTALLED


@pytest.mark.skipif(IS_INSTALLED, reason="JAX and NumPyro are installed")
def test_a_study_without_the_sampler_is_not_started(tmp_path, capsys):
    """Neither in Python nor by the command line, and nothing is written."""
    platform = Platform(tmp_path, capsys)
    platform.start()
    study = yaml.safe_load(platform.config.read_text())
    platform.config.write_text(yaml.safe_dump(study | {"surrogate": "saas"}))
    code, _, err = platform.step("--plan", tmp_path / "plan.json")
    assert code == 5
    assert "pip install 'hyperzero-torch[saas]'" in " ".join(err.split())
    assert not (tmp_path / "plan.json").exists()
    journal = hz.MemoryJournal()
    with pytest.raises(hz.MissingExtraError, match=r"hyperzero-torch\[saas\]"):
        hz.Tuner(make().problem, CONFIG, journal, surrogate="saas")
    assert journal.studies() == []


#: Far too few steps to be any good: what is proven here is that the parts fit together.
HASTY = {"warmup": 8, "samples": 4, "thinning": 2, "depth": 2}


@needs_sampler
class TestSaas(SurrogateContract):
    def make_surrogate(self):
        return Saas(**HASTY)


@needs_sampler
def test_botorch_s_class_is_saas_and_finds_the_parameter_that_matters():
    from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP

    assert choose(SaasFullyBayesianSingleTaskGP, 2).descriptor.text == Saas().descriptor
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(30, 4, generator=generator, dtype=torch.float64)
    y = 0.01 * (6 * x[:, 2:3]).sin()
    posterior = choose(Saas(warmup=48, samples=16, thinning=4), 4).fit(x, y, 0 * y + 1e-8, None)
    assert isinstance(posterior, CheckedPosterior)
    assert int(posterior.lengthscale[0].argmin()) == 2
    at = torch.rand(50, 4, generator=generator, dtype=torch.float64)
    error = posterior.marginal(at)[0] - 0.01 * (6 * at[:, 2:3]).sin()
    assert float(error.square().mean().sqrt()) < 0.002


def resident():
    """Megabytes of this process in memory."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


@needs_sampler
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as Linux has it")
def test_what_a_fit_compiled_is_not_kept():
    """A live loop fits every hour, each time other data: kept programs take 200 MB a fit."""
    generator, before = torch.Generator().manual_seed(0), 0.0
    for fit in range(6):
        x = torch.rand(20 + fit, 2, generator=generator, dtype=torch.float64)
        Saas(**HASTY).fit(x, x, torch.full_like(x, 1e-6))
        if fit == 2:
            before = resident()
    assert resident() - before < 300  # three fits of two metrics would keep 1,200
