"""Readings of a platform: users, sample mean and sample variance per arm, metric and round.

A message is checked here without knowledge of the study. ``study/reception.py`` compares it with
the study: rounds, candidates and metrics that exist, and earlier revisions. A message is recorded
as a whole or refused as a whole.
"""

from .checks import MAX_ROWS_NAMED
from .message import COLUMNS, OPTIONAL_COLUMNS, Readings

__all__ = ["COLUMNS", "MAX_ROWS_NAMED", "OPTIONAL_COLUMNS", "Readings"]
