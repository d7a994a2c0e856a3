"""Contract suites: the laws that a journal, a platform or a surrogate of your own must keep.

    class TestMyJournal(JournalContract):
        def make_journal(self, tmp_path):
            return MyJournal(tmp_path / "log")

        def reopen(self, journal):
            return MyJournal(journal.path)

``pytest`` collects the laws as tests; ``UpdaterContract`` and ``SurrogateContract`` work in the
same way. The suites themselves do not import pytest.
"""

from .entries import example_entries, random_entries
from .journals import JournalContract
from .platforms import UpdaterContract, example_plan, impossible_plans
from .surrogates import SurrogateContract, example_evidence
from .values import HARD_FLOATS

__all__ = [
    "HARD_FLOATS",
    "JournalContract",
    "SurrogateContract",
    "UpdaterContract",
    "example_entries",
    "example_evidence",
    "example_plan",
    "impossible_plans",
    "random_entries",
]
