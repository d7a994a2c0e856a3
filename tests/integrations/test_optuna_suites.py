"""Optuna's own tests of a sampler, unmodified; ours are in ``test_optuna``."""

from __future__ import annotations

import pytest

pytest.importorskip(
    "optuna", minversion="5.0", reason="needs Optuna 5: pip install 'hyperzero-torch[optuna]'"
)

import optuna
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from hyperzero_torch.integrations.optuna import HyperZeroSampler


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Given:
    """The sampler under test, as its constructor makes it by default."""

    @pytest.fixture
    def sampler(self):
        return lambda: HyperZeroSampler(seed=0)


class Eager:
    """The surrogate speaks from the first finished trial on."""

    @pytest.fixture
    def sampler(self):
        return lambda: HyperZeroSampler(seed=0, n_startup_trials=0, num_samples=32, num_starts=0)


class TestBasic(Given, BasicSamplerTestCase):
    pass


class TestBasicEager(Eager, BasicSamplerTestCase):
    pass


class TestRelative(Given, RelativeSamplerTestCase):
    pass


class TestRelativeEager(Eager, RelativeSamplerTestCase):
    pass


class TestSingleOnly(Given, SingleOnlySamplerTestCase):
    pass
