"""An exact Gaussian process per metric over the unit cube: fit, marginals, joint paths."""

from .fit import Surrogate, similarity
from .hyperparameters import Hyperparameters
from .paths import Paths
from .posterior import Posterior

__all__ = ["Hyperparameters", "Paths", "Posterior", "Surrogate", "similarity"]
