"""The scripts of bench/reliability at small sizes: nothing lost, nothing crashed."""

import json
import subprocess
import sys
from pathlib import Path

from bench.reliability import fuzz, kills

ROOT = Path(__file__).parents[2]


def test_killed_studies_are_those_that_nobody_killed(tmp_path):
    out = tmp_path / "kills.json"
    command = [sys.executable, "-m", "bench.reliability.kills", "--kills", "6", "--rounds", "4"]
    done = subprocess.run(
        [*command, "--results", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert results["kills"] >= 6
    assert results["readings"] > 0
    assert (results["lost"], results["doubled"], results["other_plans"]) == (0, 0, 0)
    assert f"| {results['kills']} in" in kills.table(out)


def test_hostile_input_is_taken_as_it_is_or_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    progress = []
    summary = fuzz.run(1500, seed=1, progress=progress.append)
    wrong = {k: v for k, v in summary.items() if v["WRONG"] or v["CRASHED"]}
    assert not wrong, progress
    assert all(v["refused"] > 0 for v in summary.values())
    assert summary["objective"]["taken"] > 0
