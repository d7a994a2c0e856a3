"""Contract suites: the laws that a journal or a platform of your own must keep.

    class TestMyJournal(JournalContract):
        def make_journal(self, tmp_path):
            return MyJournal(tmp_path / "log")

        def reopen(self, journal):
            return MyJournal(journal.path)

and ``pytest`` collects the laws as tests; ``UpdaterContract`` likewise. No pytest is needed here.
"""

from .journals import (
    HARD_FLOATS,
    JournalContract,
    example_entries,
    random_entries,
)
from .platforms import UpdaterContract, example_plan, impossible_plans

__all__ = [
    "HARD_FLOATS",
    "JournalContract",
    "UpdaterContract",
    "example_entries",
    "example_plan",
    "impossible_plans",
    "random_entries",
]
