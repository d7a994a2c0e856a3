"""Few parameters matter: BoTorch's SAAS model, averaged over draws of its hyperparameters.

``SaasFullyBayesianSingleTaskGP`` puts a prior on lengthscales under which most parameters have no
effect, and draws hyperparameters by the No-U-Turn sampler. The posterior is a mixture of exact
Gaussian processes, one for each draw. ``marginal`` and ``covariance`` are the mixture's moments;
each path comes from one draw's process, so paths are draws of the mixture itself.

Noise is known. What is approximated: while hyperparameters are drawn, errors that arms share
through their control count as independent, since BoTorch's sampler takes variances alone. Given the
draws, each process is conditioned on the whole covariance of the errors.

The sampler is NumPyro's, on JAX: BoTorch has no other for this model. The extra ``saas`` installs
them, ``all`` does not: JAX is a second framework of tensors, for this surrogate alone. It takes
seconds for a metric, most of them to compile; steps are few by default, and settings.

Source: Eriksson and Jankowiak (2021), High-dimensional Bayesian optimization with sparse
axis-aligned subspaces.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from .foreign.mixture import MixturePosterior

_PACKAGES = ("botorch", "jax", "numpyro")


class Saas:
    """Exact Gaussian processes averaged over draws of their hyperparameters; see the module.

    Args:
        warmup: steps of the sampler that are thrown away.
        samples: steps after them.
        thinning: every so many of them is kept; samples / thinning processes are averaged.
        depth: of the sampler's trees at most; a step evaluates at most 2^depth slopes.
        seed: of the sampler.
    Raises:
        ConfigError: a setting that is no whole number in its range.
    """

    def __init__(
        self,
        warmup: int = 64,
        samples: int = 64,
        thinning: int = 4,
        depth: int = 5,
        seed: int = 0,
    ) -> None:
        for name, value, least in (("warmup", warmup, 8), ("samples", samples, 2),
                                   ("thinning", thinning, 1), ("depth", depth, 1),
                                   ("seed", seed, 0)):  # fmt: skip
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be a whole number >= {least}, got {value!r}")
        if samples < 2 * thinning:
            raise ConfigError(
                f"samples / thinning must be at least 2 draws to average, got {samples} / "
                f"{thinning}; raise samples"
            )
        self.warmup, self.samples, self.thinning = warmup, samples, thinning
        self.depth, self.seed = depth, seed

    @property
    def descriptor(self) -> str:
        """What its fits depend on, for the journal."""
        return (
            f"Saas(warmup={self.warmup}, samples={self.samples}, thinning={self.thinning}, "
            f"depth={self.depth}, seed={self.seed})"
        )

    @staticmethod
    def check_installed() -> None:
        """Refuse where the sampler is not installed.

        Raises:
            MissingExtraError: BoTorch, JAX or NumPyro is missing.
        """
        missing = [name for name in _PACKAGES if find_spec(name) is None]
        if missing:
            raise MissingExtraError("the surrogate 'saas'", " and ".join(missing), "saas")

    def fit(
        self,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        shared: Tensor | None = None,
        prior_std: Tensor | None = None,
    ) -> MixturePosterior:
        """The posterior given evidence; arguments and errors as in ``Surrogate``.

        Raises:
            MissingExtraError: BoTorch, JAX or NumPyro is missing.
        """
        self.check_installed()
        from .foreign.mixture import fit_saas  # GPyTorch, BoTorch and JAX are slow to import

        return fit_saas(self, x, mean, var, shared, prior_std)
