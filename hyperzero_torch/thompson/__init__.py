"""Thompson sampling of arbitrary objectives and constraints: Algorithms 1 and 3."""

from .distributed import sharing
from .propose import Proposals, propose
from .select import Selection, select, select_paths

__all__ = ["Proposals", "Selection", "propose", "select", "select_paths", "sharing"]
