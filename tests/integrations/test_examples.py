"""The examples run, and show what they say they show."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_neural_objective_learnt_from_past_experiments_finds_what_the_first_metric_misses(
    monkeypatch,
):
    # Of 1024 points, each judged by a thousand calls of the network: most of the example's time.
    monkeypatch.setattr("hyperzero_torch.tuner.verification._NUM_SAMPLES", 512)
    results = load("neural_objective").main(rounds=5)
    assert results["r_squared"] > 0.8
    assert results["neural"] > 0.5 * results["possible"]
    assert results["neural"] > results["first metric"] + 0.01
    assert results["neural violation"] <= 0.001


@pytest.fixture(scope="module")
def on_ray():
    """What the example prints: one cluster for both of its parts."""
    pytest.importorskip("ray.tune", reason="needs Ray: pip install 'hyperzero-torch[ray]'")
    budget = ["--studies", "2", "--rounds", "2", "--tune", "--trials", "5"]
    done = subprocess.run(
        [sys.executable, EXAMPLES / "ray_studies.py", *budget],
        capture_output=True,
        text=True,
        check=True,
        cwd=EXAMPLES.parent,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )
    return done.stdout.splitlines()


@pytest.mark.timeout(280)
def test_studies_run_side_by_side_on_ray(on_ray):
    lines = [line for line in on_ray if line.startswith("study feed_")]
    assert [line.split(",")[0] for line in lines] == ["study feed_0", "study feed_1"]
    assert all("P(feasible)" in line for line in lines)


def test_ray_tunes_the_tuner(on_ray):
    """More trials than start-up points, so the last one comes from the surrogate."""
    lines = [line for line in on_ray if line.startswith("trial with ")]
    pattern = r"trial with (caution (\S+), (250|1000) draws): score (\S+), violation (\S+)"
    trials = [re.fullmatch(pattern, line) for line in lines]
    assert len(trials) == 5
    assert all(trials), lines
    assert all(0 <= float(trial[2]) <= 3 for trial in trials)
    assert len({trial[2] for trial in trials}) == 5
    assert on_ray[-1].startswith(("best: caution", "no violation is at most"))


def test_the_best_trial_is_the_best_of_those_that_keep_the_bound(capsys):
    pytest.importorskip("ray.tune", reason="needs Ray: pip install 'hyperzero-torch[ray]'")
    example = load("ray_studies")

    def ended(caution, score, violation, error=None):
        metrics = {} if error else {"score": score, "violation": violation}
        config = {"caution": caution, "num_draws": 250}
        return SimpleNamespace(config=config, metrics=metrics, error=error)

    wild, lame = ended(0.0, 0.9, 0.5), ended(3.0, 0.1, 0.0)
    example.show([wild, lame, ended(1.0, 0.7, 0.002), ended(2.0, 0.8, 0.0, error="lost")])
    *_, failed, best = capsys.readouterr().out.splitlines()
    assert failed == "trial with caution 2, 250 draws failed: lost"
    assert best == "best: caution 1, 250 draws"
    example.show([wild])
    assert capsys.readouterr().out.splitlines()[-1] == "no violation is at most 0.002"
