"""BoTorch and this package, in both directions: posteriors, paths and fitted models.

    HyperZeroModel(posterior)     our posterior as a BoTorch ``Model``
    path_model(paths)             our path draws as a ``GenericDeterministicModel``
    BoTorchPosterior(model)       a fitted BoTorch model for ``thompson.propose`` and similar

Points are in the unit cube on both sides.
"""

from ...errors import MissingExtraError

try:
    from .convert import HyperZeroModel, path_model
    from .posterior import BoTorchPaths, BoTorchPosterior
except ImportError as error:
    raise MissingExtraError("hyperzero_torch.integrations.botorch", "botorch", "botorch") from error

__all__ = ["BoTorchPaths", "BoTorchPosterior", "HyperZeroModel", "path_model"]
