"""An exact Gaussian process per metric over the unit cube: fit, marginals, joint paths."""

from .conditioned import Standardiser
from .ensemble import Ensemble
from .factors import leave_one_out_log_density
from .fit import Surrogate, similarity
from .kernels import Hyperparameters, default_hyperparameters
from .multitask import MultiTask
from .paths import Paths
from .posterior import Posterior
from .saas import Saas

__all__ = [
    "Ensemble",
    "Hyperparameters",
    "MultiTask",
    "Paths",
    "Posterior",
    "Saas",
    "Standardiser",
    "Surrogate",
    "default_hyperparameters",
    "leave_one_out_log_density",
    "similarity",
]
