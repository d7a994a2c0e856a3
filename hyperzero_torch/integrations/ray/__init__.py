"""A searcher for Ray Tune.

searcher   the searcher itself
space      Ray's parameter space as axes of ours
reports    what trials report, as values, slacks and variances
state      what is saved and restored
"""

from ...errors import MissingExtraError

try:
    from .searcher import HyperZeroSearch
except ImportError as error:
    raise MissingExtraError("hyperzero_torch.integrations.ray", "ray[tune]", "ray") from error

__all__ = ["HyperZeroSearch"]
