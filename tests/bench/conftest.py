"""Benchmarks that a test starts are processes of their own, whatever runs the test."""

import pytest


@pytest.fixture(autouse=True, scope="package")
def _own_processes():
    """pytest-benchmark measures nothing where it sees that its tests are divided."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)
        yield
