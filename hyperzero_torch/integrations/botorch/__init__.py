"""BoTorch and this package, in both directions: posteriors, paths and fitted models."""

from .convert import BoTorchPaths, BoTorchPosterior, HyperZeroModel, path_model

__all__ = ["BoTorchPaths", "BoTorchPosterior", "HyperZeroModel", "path_model"]
