"""What is tuned: parameters and space, objective and constraints."""

from .problem import Constraint, Objective, Outcome, Problem
from .space import Choice, Float, Int, SearchSpace

__all__ = [
    "Choice",
    "Constraint",
    "Float",
    "Int",
    "Objective",
    "Outcome",
    "Problem",
    "SearchSpace",
]
