"""The benchmarks of speed run, at small sizes, and their table is drawn from the JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.speed import asks, subset
from bench.speed.growth import SERIES, exponent, measure_point
from bench.speed.table import FILES, table
from hyperzero_torch.surrogate import fit

ROOT = Path(__file__).parents[2]
# Peers that are not among the test extras are skipped; inductor takes a minute.
FAST = "not compile and not pandas and not float32"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    names = ("moments", "selection")
    both = folder / "both.json"
    command = [  # one process: importing PyTorch takes most of it
        *(sys.executable, "-m", "pytest", *(f"bench/speed/bench_{name}.py" for name in names)),
        *("-q", "--scale", "0.002", "-k", FAST, f"--benchmark-json={both}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:]
    report = json.loads(both.read_text())
    both.unlink()
    for name in names:
        own = [b for b in report["benchmarks"] if f"bench_{name}.py" in b["fullname"]]
        assert own
        (folder / f"speed_{name}.json").write_text(json.dumps(report | {"benchmarks": own}))
    return folder


def test_each_question_has_its_benchmark():
    names = {path.stem.removeprefix("bench_") for path in (ROOT / "bench/speed").glob("bench_*.py")}
    assert names == set(FILES)


def test_the_table_has_every_contender_against_limit_and_peer(results):
    rows = [line.split(" | ") for line in table(results).splitlines()[2:]]
    by_name = {row[1].strip(): row for row in rows}
    assert {"copy", "**C kernel**", "polars", "drawing the normals"} <= set(by_name)
    ours = by_name["**C kernel**"]
    assert ours[4].endswith("x its time")
    assert "x as fast" in ours[5]
    assert "x" not in by_name["copy"][4]


def test_the_table_is_drawn_from_what_was_measured(tmp_path):
    runs = [("limit", 100, 2.0), ("ours", 100, 1.0), ("peer", 10, 4.0)]
    report = [
        {
            "group": "question",
            "extra_info": {"who": role, "role": role, "work": work, "median": median},
            "stats": {},
        }
        for role, work, median in runs
    ]
    (tmp_path / "speed_paths.json").write_text(json.dumps({"benchmarks": report}))
    limit, ours, peer, cuda = table(tmp_path).splitlines()[2:]
    assert cuda == "| the same on CUDA (`python -m bench.cuda`) | not measured |  |  |  |  |"
    (tmp_path / "speed_cuda_paths.json").write_text(json.dumps({"benchmarks": report}))
    assert "not measured" not in table(tmp_path)
    assert limit == "| question | limit | 2 s | 50 |  |  |"
    assert ours == "|  | **ours** | 1 s | 100 | 0.50 x its time | 40.0 x as fast |"
    assert peer == "|  | peer | 4 s | 2 | 20.00 x its time |  |"


@pytest.mark.parametrize("name", SERIES)
def test_growth_measures_a_point(name):
    point = measure_point(name, min(SERIES[name].sizes))
    assert point["seconds"] > 0
    assert point["mib"] >= 0


def test_the_exponent_is_that_of_the_upper_half():
    points = [{"size": s, "seconds": 5 + s**2.0} for s in (1, 2, 1e3, 1e4, 1e5)]
    assert exponent(points, "seconds") == pytest.approx(2.0, abs=1e-3)
    assert exponent([{"size": 1, "mib": 0.0}], "mib") is None


def test_whole_asks_are_timed_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(asks, "RESULT", tmp_path / "asks.json")
    monkeypatch.setattr(asks, "CASES", {"small": asks.Case(12, 6, 2, 3, 4.0)})
    row = asks.measure("small")
    assert row["seconds"] >= row["fit"] > 0
    asks.RESULT.write_text(json.dumps({"small": row}))
    shown = asks.table(asks.RESULT).splitlines()[-1]
    assert shown.startswith("| 12 | 6 | 3 | ")
    assert " | 4 s | " in shown
    asks.RESULT.write_text(json.dumps({"small": row | {"refused": "It needs 9 GiB; retire more"}}))
    assert "| refused: It needs 9 GiB | - | 4 s | - |" in asks.table(asks.RESULT)


def test_the_loss_of_a_subset_is_measured_and_shown(tmp_path, monkeypatch):
    """Both sets of hyperparameters predict, about equally well, and they are not the same."""
    monkeypatch.setattr(fit, "MOST_FITTED", 40)
    row = subset.measure(0, 120)
    assert abs(row["all"] - row["subset"]) < 0.5
    assert row["all"] != row["subset"]
    path = tmp_path / "subset.json"
    path.write_text(json.dumps([row]))
    shown = subset.table(path).splitlines()[-1]
    assert shown.startswith("| 120 | 1 | ")
