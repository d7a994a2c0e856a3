"""``SurrogateContract`` on the package's own model and on models that are not."""

import torch
from gpytorch.kernels import (
    LinearKernel,
    MaternKernel,
    PeriodicKernel,
    RBFKernel,
    ScaleKernel,
    SpectralMixtureKernel,
)
from gpytorch.means import LinearMean
from support.deep_kernel import DeepKernel
from support.quadratic_surrogate import Quadratic

from hyperzero_torch.testing import SurrogateContract


class TestTheDefault(SurrogateContract):
    def make_surrogate(self):
        return None


class TestAKernel(SurrogateContract):
    def make_surrogate(self):
        return ScaleKernel(RBFKernel(ard_num_dims=2))


class TestAnAdditiveKernel(SurrogateContract):
    def make_surrogate(self):
        first, second = (ScaleKernel(MaternKernel(active_dims=[d])) for d in range(2))
        return first + second


class TestAKernelWithoutASpectralDensity(SurrogateContract):
    def make_surrogate(self):
        return ScaleKernel(PeriodicKernel()) + ScaleKernel(RBFKernel(ard_num_dims=2))


class TestAPeriodicKernel(SurrogateContract):
    def make_surrogate(self):
        return ScaleKernel(PeriodicKernel(ard_num_dims=2))


class TestALinearTrendAndAKernel(SurrogateContract):
    def make_surrogate(self):
        return LinearKernel() + ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=2))


class TestASpectralMixture(SurrogateContract):
    def make_surrogate(self):
        return SpectralMixtureKernel(num_mixtures=3, ard_num_dims=2)


class TestADeepKernel(SurrogateContract):
    def make_surrogate(self):
        return ScaleKernel(DeepKernel(2))


class TestAMeanAndAKernel(SurrogateContract):
    def make_surrogate(self):
        torch.manual_seed(0)  # the weights of this mean are drawn
        return LinearMean(2), ScaleKernel(MaternKernel(nu=1.5, ard_num_dims=2))


class TestABoTorchModel(SurrogateContract):
    def make_surrogate(self):
        from botorch.models import SingleTaskGP

        return SingleTaskGP


class TestAnEnsembleOfNetworks(SurrogateContract):
    def make_surrogate(self):
        return "ensemble"


class TestAnObjectOfTheProtocol(SurrogateContract):
    def make_surrogate(self):
        return Quadratic()
