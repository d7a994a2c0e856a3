"""Models that are not the package's own: of GPyTorch, of BoTorch, or any object with ``fit``."""

from .checked import CheckedPaths, CheckedPosterior
from .choose import ForeignSurrogate, choose
from .descriptor import Descriptor

__all__ = ["CheckedPaths", "CheckedPosterior", "Descriptor", "ForeignSurrogate", "choose"]
