"""What a platform reports: users, sample mean and sample variance per arm, metric and round.

Validation happens here, once, as far as it needs no knowledge of the study; the history adds what
only it can know (candidates, rounds and metrics that exist, revisions that contradict).
A message is taken whole or refused whole.
"""

from .checks import MAX_ROWS_NAMED
from .message import COLUMNS, OPTIONAL_COLUMNS, Readings

__all__ = ["COLUMNS", "MAX_ROWS_NAMED", "OPTIONAL_COLUMNS", "Readings"]
