"""From other domains, guarded: their evidence, what they are like, and what may be taken over."""

from . import aggregation, budget, features, package, privacy, similarity, space
from .align import Aligned, Rescaled, align, translate
from .overlap import check_distinct
from .overrule import Overrule
from .source import Source, from_bucket, from_journal

__all__ = [
    "Aligned",
    "Overrule",
    "Rescaled",
    "Source",
    "aggregation",
    "align",
    "budget",
    "check_distinct",
    "features",
    "from_bucket",
    "from_journal",
    "package",
    "privacy",
    "similarity",
    "space",
    "translate",
]
