"""The simulated card: built once, and run in a process of its own, before torch is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.device import guard

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The guard; without a compiler the tests are skipped."""
    try:
        return guard.build(tmp_path_factory.mktemp("guard"))
    except guard.NoCompilerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def on_card(library):
    """Runs a module on the simulated card: the JSON objects that it prints, a line each."""

    def run(module, *arguments):
        command = [sys.executable, "-W", "ignore", "-m", module, str(library), *arguments]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        environment = os.environ | {"PYTHONPATH": paths}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run
