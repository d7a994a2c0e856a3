"""Linear constraints on theta: parsing, tests, and points that satisfy them."""

from .nearest import nearest
from .parse import Linear, parse_linear
from .region import Region
from .samples import grid, sobol, uniform

__all__ = ["Linear", "Region", "grid", "nearest", "parse_linear", "sobol", "uniform"]
