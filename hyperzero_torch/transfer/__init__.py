"""From other domains, guarded: their evidence, what they are like, and what may be taken over."""

from . import features, similarity, space_reduction
from .alignment import Aligned, Rescaled, align, translate
from .duplicates import check_distinct
from .model import correlation
from .overrides import ExpertOverride
from .sharing import budget, noise, package, revocation, secure_sum, signing
from .source import Source, from_bucket, from_journal

__all__ = [
    "Aligned",
    "ExpertOverride",
    "Rescaled",
    "Source",
    "align",
    "budget",
    "check_distinct",
    "correlation",
    "features",
    "from_bucket",
    "from_journal",
    "noise",
    "package",
    "revocation",
    "secure_sum",
    "signing",
    "similarity",
    "space_reduction",
    "translate",
]
