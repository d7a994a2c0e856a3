"""An exact Gaussian process per metric over the unit cube: fit, marginals, joint paths."""

from .fit import Surrogate, similarity
from .paths import Paths
from .posterior import Hyperparameters, Posterior

__all__ = ["Hyperparameters", "Paths", "Posterior", "Surrogate", "similarity"]
