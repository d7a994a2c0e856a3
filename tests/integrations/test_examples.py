"""The examples run, and show what they say they show."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_neural_objective_learnt_from_past_experiments_finds_what_the_first_metric_misses():
    found = load("neural_objective").main()
    assert found["r_squared"] > 0.8
    assert found["neural"] > 0.5 * found["possible"]
    assert found["neural"] > found["first metric"] + 0.01
    assert found["neural violation"] <= 0.001


@pytest.mark.timeout(280)
def test_studies_run_side_by_side_on_ray():
    pytest.importorskip("ray.tune", reason="needs Ray: pip install 'hyperzero-torch[ray]'")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "ray_studies.py", "--studies", "2", "--rounds", "2"],
        capture_output=True,
        text=True,
        check=True,
        cwd=EXAMPLES.parent,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("study feed_")]
    assert [line.split(",")[0] for line in lines] == ["study feed_0", "study feed_1"]
    assert all("P(feasible)" in line for line in lines)
