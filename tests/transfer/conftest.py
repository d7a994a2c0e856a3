"""What several files ask about one study of transfer; it is only read."""

import pytest
from support import transfer_study


@pytest.fixture(scope="session")
def told_study(tmp_path_factory):
    """Nine rounds with three sources, overruled twice."""
    return transfer_study.study_with_sources(tmp_path_factory.mktemp("packages"))
