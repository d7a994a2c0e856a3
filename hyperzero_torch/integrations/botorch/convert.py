"""Our posterior and its paths as BoTorch models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from botorch.models.deterministic import GenericDeterministicModel
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from gpytorch.settings import min_variance
from torch import Tensor, nn

from ...errors import InputError, ShapeError
from ...surrogate import Hyperparameters, Paths, Posterior, Standardiser, Surrogate
from ...surrogate.kernels import matern52
from .checks import check_in_cube, check_points, checked_outputs, checked_unit, shape_or_type
from .posterior import BoTorchPaths, BoTorchPosterior

if TYPE_CHECKING:
    from botorch.acquisition.objective import PosteriorTransform

# Added to the diagonal of joint covariances, as a fraction of the prior variance, so that those of
# coinciding points can be factorised.
_JITTER = 1e-9


class HyperZeroModel(Model):  # type: ignore[misc]  # untyped
    """Our posterior as a BoTorch model: one output per metric, independent of each other.

    Args:
        posterior: over the unit cube, in deltas; held, not copied.
        unit: of the outputs, e.g. 0.01 for percentage points. GPyTorch rounds variances up to
            1e-10, which can exceed the variance of a precisely known delta.
        outputs: indices of metrics, each once; all by default.
    Raises:
        InputError: not a fitted posterior of ours, an invalid unit, or a unit in which some
            posterior variances would be rounded up; the message names a unit that works.
        ShapeError: outputs that do not exist.
    """

    def __init__(
        self, posterior: Posterior, unit: float = 1.0, outputs: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if not isinstance(posterior, Posterior):
            hint = ""
            if isinstance(posterior, Surrogate):
                hint = ": a Surrogate is a way of fitting; pass what its fit returns"
            elif isinstance(posterior, BoTorchPosterior):
                hint = ": that is a BoTorch model already; pass its model to BoTorch"
            raise InputError(
                "HyperZeroModel takes a fitted posterior, from hz.Surrogate().fit(x, mean, var) or "
                f"tuner.surrogate(); got {shape_or_type(posterior)}{hint}"
            )
        num = posterior.num_metrics
        self.outputs = checked_outputs(range(num) if outputs is None else outputs, num)
        self.belief = posterior
        self.unit = unit = checked_unit(unit)
        with torch.no_grad():
            least = float(posterior.marginal(posterior.x)[1].sqrt().min())
        if not least / unit > min_variance.value(torch.float64) ** 0.5:
            enough = 10.0 ** math.floor(math.log10(least) + 4)
            raise InputError(
                f"the posterior's smallest standard deviation is {least:.1e}, and GPyTorch rounds "
                f"those below 1e-5 units up; pass unit={enough:g} or smaller, and put objectives "
                "and constraints into the same unit"
            )

    @property
    def num_outputs(self) -> int:
        """Number of metrics."""
        return len(self.outputs)

    @property
    def batch_shape(self) -> torch.Size:
        """Empty: there is one posterior."""
        return torch.Size([])

    def subset_output(self, idcs: list[int]) -> HyperZeroModel:
        """The same model with some of its outputs."""
        kept = checked_outputs(idcs, self.num_outputs)
        return HyperZeroModel(self.belief, self.unit, [self.outputs[i] for i in kept])

    def posterior(
        self,
        X: Tensor,  # noqa: N803  (BoTorch's name)
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Any:
        """Joint over the q points of each batch, differentiable in ``X``.

        Always in float64: GPyTorch rounds float32 variances up to 1e-6 units.

        Args:
            X: ``(*batch, q, dims)`` in the unit cube.
            output_indices: a subset of the outputs.
            observation_noise: variances ``(*batch, q, outputs)`` or a shape that broadcasts to it,
                in ``unit`` squared. True is refused: a delta's noise depends on the traffic.
            posterior_transform: applied last.
        Returns:
            ``GPyTorchPosterior`` of ``(*batch, q, outputs)``, or its transform.
        Raises:
            ShapeError: points of another width, or noise of another shape.
            InputError: points outside the unit cube, or noise that does not hold variances.
        """
        if output_indices is not None:
            subset = self.subset_output(output_indices)
            return subset.posterior(X, None, observation_noise, posterior_transform)
        self._check(X)
        mean, covariance = self._joint(X.to(self.belief.x))
        if observation_noise is not False:
            noise = self._checked_noise(observation_noise, X.shape[:-1])
            covariance = covariance + torch.diag_embed(noise.movedim(-1, 0))
        normal = MultivariateNormal(mean, covariance)
        if self.num_outputs > 1:
            normal = MultitaskMultivariateNormal.from_batch_mvn(normal, task_dim=0)
        else:
            normal = MultivariateNormal(normal.mean[0], normal.covariance_matrix[0])
        joint = GPyTorchPosterior(normal)
        return joint if posterior_transform is None else posterior_transform(joint, X=X)

    def _check(self, X: Tensor) -> None:  # noqa: N803
        check_points(X, self.belief.x, "(*batch, q, {})", at_least=2)
        check_in_cube(X)

    def _checked_noise(self, noise: bool | Tensor, points: torch.Size) -> Tensor:
        """Variances ``(*points, outputs)``, finite and not negative."""
        if not isinstance(noise, Tensor):
            raise InputError(
                f"observation_noise={noise} has no meaning here: the noise of a delta depends on "
                "the traffic that it will get; pass the variances as a tensor (*batch, q, outputs)"
            )
        shape = (*points, self.num_outputs)
        try:
            wide = noise.to(self.belief.x).expand(shape)
        except RuntimeError as error:
            raise ShapeError(
                f"observation_noise is (*batch, q, outputs), here {shape}, or what broadcasts to "
                f"it; got {tuple(noise.shape)}"
            ) from error
        if not bool(((wide >= 0) & wide.isfinite()).all()):
            raise InputError("observation_noise holds variances, finite and not negative")
        return wide

    def fantasize(self, *_: Any, **__: Any) -> NoReturn:
        """Not supported: it would condition on a batch of outcomes at once.

        Raises:
            InputError: always; names the alternatives.
        """
        raise InputError(
            "fantasize, and acquisitions that need it such as qKnowledgeGradient, are not "
            "supported: a posterior of ours holds one set of outcomes, not a batch; use "
            "qLogNoisyExpectedImprovement or another acquisition that needs the posterior alone, "
            "or condition_on_observations"
        )

    def _joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(outputs, *batch, q)`` and covariance ``(outputs, *batch, q, q)``, in ``unit``."""
        belief, rows = self.belief, list(self.outputs)
        batch, q = x.shape[:-2], x.shape[-2]
        k = belief.cross(x.reshape(-1, x.shape[-1]))[rows]  # (outputs, N, n)
        mean = (
            belief.constant[rows].unsqueeze(-1) + (k @ belief.weights[rows].unsqueeze(-1))[..., 0]
        )
        half = torch.linalg.solve_triangular(belief.cholesky[rows], k.mT, upper=False)
        half = half.mT.reshape(len(rows), *batch, q, -1)
        prior = matern52(x, x, belief.lengthscale[rows]) + _JITTER * torch.eye(q).to(x)
        prior = prior * belief.outputscale[rows].view(-1, *(1,) * x.ndim)
        scale = belief.scale[rows] / self.unit
        covariance = (prior - half @ half.mT) * scale.square().view(-1, *(1,) * x.ndim)
        mean = belief.shift[rows].unsqueeze(-1) / self.unit + scale.unsqueeze(-1) * mean
        return mean.reshape(len(rows), *batch, q), covariance

    def condition_on_observations(
        self,
        X: Tensor,  # noqa: N803
        Y: Tensor,  # noqa: N803
        noise: Tensor | None = None,
        **kwargs: Any,
    ) -> HyperZeroModel:
        """The model given more observations, under the same hyperparameters.

        Args:
            X: ``(n', dims)`` in the unit cube; batches are not supported.
            Y: ``(n', outputs)``, in ``unit``.
            noise: ``(n', outputs)`` their variances, in ``unit`` squared; required. Infinite where
                nothing was observed; ``Y`` is then ignored.
        Raises:
            InputError: no variances, a model with a subset of the outputs, batches, or values that
                are not finite.
            ShapeError: shapes that do not match.
        """
        belief, num = self.belief, self.belief.num_metrics
        self._check(X)
        if not isinstance(noise, Tensor) or self.outputs != tuple(range(num)) or X.ndim != 2:
            raise InputError(
                "condition_on_observations needs noise=variances (n', outputs), all outputs, and "
                f"X (n', dims) without a batch; got noise={type(noise).__name__}, outputs "
                f"{list(self.outputs)} of {num} and X {tuple(X.shape)}"
            )
        if not isinstance(Y, Tensor) or Y.shape != (len(X), num) or noise.shape != Y.shape:
            raise ShapeError(
                f"expected Y and noise ({len(X)}, {num}), "
                f"got {shape_or_type(Y)} and {shape_or_type(noise)}"
            )
        if not bool(((noise >= 0) & (Y.isfinite() | noise.isinf())).all()):
            raise InputError(
                "Y must be finite and noise hold variances, not negative; where nothing was "
                "observed the variance is infinite"
            )
        scale = belief.scale / self.unit
        y = (Y.to(scale) - belief.shift / self.unit) / scale
        variances = torch.cat([belief.noise.T, noise.to(scale) / scale.square()])
        shared = belief.shared_noise
        if shared is not None:
            shared = nn.functional.pad(shared, (0, len(X), 0, len(X)))
        more = Posterior(
            torch.cat([belief.x, X.to(belief.x)]),
            torch.cat([belief.outputs.T, y]),
            variances,
            Hyperparameters(*belief.hyperparameters),
            Standardiser(*belief.standardiser),
            shared,
            fit_succeeded=belief.fit_succeeded,
        )
        return HyperZeroModel(more, self.unit)


def path_model(paths: Paths | BoTorchPaths, unit: float = 1.0) -> GenericDeterministicModel:
    """Our path draws as a deterministic BoTorch model.

    One path maps ``(*batch, n, dims)`` to ``(*batch, n, metrics)``. Several paths form a model of
    batch shape ``(paths,)``: path p maps its own points of ``(*batch, paths, n, dims)``.

    Args:
        paths: from ``posterior.paths``.
        unit: as in ``HyperZeroModel``.
    Raises:
        InputError: not paths, an invalid unit, or, at a call, points outside the unit cube.
    """
    if not isinstance(paths, Paths | BoTorchPaths):
        raise InputError(
            "path_model takes functions drawn from a posterior, posterior.paths(num_paths); "
            f"got {shape_or_type(paths)}"
        )
    num, unit, like = paths.num_paths, checked_unit(unit), paths.posterior.x

    def single(x: Tensor) -> Tensor:
        check_points(x, like, "(*batch, n, {})", at_least=2)
        check_in_cube(x)
        value = paths(x.reshape(-1, x.shape[-1]))[0]
        return value.reshape(*x.shape[:-1], -1) / unit

    def several(x: Tensor) -> Tensor:
        wanted = f"(*batch, {num}, n, {{}})"
        check_points(x, like, wanted, at_least=3)
        if x.shape[-3] not in (1, num):
            expected = wanted.format(like.shape[1])
            raise ShapeError(f"expected points {expected}, got {shape_or_type(x)}")
        check_in_cube(x)
        x = x.expand(*x.shape[:-3], num, *x.shape[-2:]).movedim(-3, 0)  # (paths, *batch, n, dims)
        value = paths.each(x.reshape(num, -1, x.shape[-1]))
        return value.reshape(*x.shape[:-1], -1).movedim(0, -3).to(x.dtype) / unit

    metrics = paths.posterior.num_metrics
    if num == 1:
        return GenericDeterministicModel(single, metrics, torch.Size([]))
    return GenericDeterministicModel(several, metrics, torch.Size([num]))
