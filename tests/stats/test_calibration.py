"""The benchmark of calibrated intervals: the packed A/B tests, and files that are none."""

import gzip
import importlib.util
import json
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "quality" / "calibration.py"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not here")


@pytest.fixture(scope="module")
def calibration():
    spec = importlib.util.spec_from_file_location("calibration", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bundled():
    packed = resources.files("hyperzero_torch.simulate") / "data" / "asos_ab_tests.csv.gz"
    return gzip.decompress(packed.read_bytes()).decode().splitlines()


def test_intervals_of_the_next_real_delta_cover_what_they_claim(tmp_path, calibration, capsys):
    out = tmp_path / "calibration.json"
    calibration.main(["--out", str(out)])
    printed = capsys.readouterr().out
    results = json.loads(out.read_text())
    assert set(results["next_delta"]) == {f"metric_{m}" for m in (1, 2, 3, 4)}
    for metric, line in results["next_delta"].items():
        assert line["predictions"] > 2900
        assert line["covered_formula"] < 0.9
        assert 0.93 <= line["covered"] <= 0.97, metric
        assert 0.9 <= line["robust_std"] <= 1.1, metric
        assert f"{line['covered']:.1%}" in printed
    for line in results["pooled, intervals in turn"].values():  # 44 streams: a std of 0.1 or so
        assert 0.8 < line["robust_std"] < 1.25
    streams = [r for r in results["streams"] if r["metric"] == "metric_1"]
    total = sum(r["predictions"] * r["covered"] for r in streams)
    line = results["next_delta"]["metric_1"]
    assert total == pytest.approx(line["predictions"] * line["covered"], abs=1)


def test_a_few_experiments_and_a_missing_metric_are_enough(tmp_path, calibration):
    header, *rows = bundled()
    name, metric = (header.split(",").index(c) for c in ("experiment_id", "metric_id"))
    chosen = [
        row
        for row in rows
        if row.split(",")[name] in ("2c8a04", "df31d1") and row.split(",")[metric] in "13"
    ]
    path = tmp_path / "few.csv"
    path.write_text("\n".join([header, *chosen]) + "\n")
    calibration.main(["--data", str(path), "--out", str(tmp_path / "few.json")])
    results = json.loads((tmp_path / "few.json").read_text())
    assert sorted(results["next_delta"]) == ["metric_1", "metric_3"]
    assert results["data"] == "few.csv"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a file of cumulative A/B tests"),
        ("a,b\n1,2\n", "expected CSV, gzipped or not, with the columns experiment_id"),
        ("short", "has no stream of 8 usable intervals with 50 new users"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, calibration, content, message):
    path = tmp_path / "given.csv"
    if content == "short":
        content = "\n".join(bundled()[:3]) + "\n"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as left:
        calibration.main(["--data", str(path), "--out", str(tmp_path / "x.json")])
    assert message in str(left.value.code)
    assert not (tmp_path / "x.json").exists()


def test_help_teaches(calibration, capsys):
    with pytest.raises(SystemExit) as left:
        calibration.main(["--help"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("covered", "robust std", "--data", "mean_c"))
