"""Models that are not the package's own: of GPyTorch, of BoTorch, or any object with ``fit``."""

from .checked import CheckedPaths, CheckedPosterior
from .choose import ForeignSurrogate, choose, with_prior_mean
from .descriptor import Descriptor
from .prior_mean import PriorMean

__all__ = [
    "CheckedPaths",
    "CheckedPosterior",
    "Descriptor",
    "ForeignSurrogate",
    "PriorMean",
    "choose",
    "with_prior_mean",
]
