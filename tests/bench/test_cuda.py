"""The figures for CUDA: what is run, what is refused, what is written; at tiny size here."""

import json
import subprocess
import sys
import time

import pytest
import torch

from bench import cuda
from bench.device import rows, wheels
from bench.device.rows import Row
from bench.speed.table import table

CPU = torch.device("cpu")
TINY = ["--device", "cpu", "--scale", "0.0005"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--minutes", "0"], "must be above 0"),
        (["--scale", "nan"], "must be above 0"),
        (["--only", "weather"], "invalid choice"),
        (["--device", "cuda"], "sees no CUDA device"),
        (["--device", "cuda:3"], "its rows stay 'not measured'"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_nothing_is_written(
    wrong, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    results = tmp_path / "results"
    with pytest.raises(SystemExit) as ended:
        cuda.main(["--device", "cpu", "--results", str(results), *wrong])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not results.exists()


def test_every_wanted_row_is_there_the_most_important_first():
    questions = list(dict.fromkeys(row.question for row in rows.rows(CPU, rows.Sizes())))
    wanted = [
        *("1 joint draw, n = 1000, 4 metrics, N = 1,000,000",),
        *("mean and variance, n = 1000, 4 metrics, N = 1,000,000",),
        *("streaming deltas, 200,000 candidates x 16 metrics, float64",),
        *("raw values to moments, 10,000,000 users x 8 metrics, float32",),
        *("selection, 1000 draws x 10,000 candidates x 8 metrics",),
        *("a whole round, bucket of 1000, 4 metrics, N = 1,000,000",),
        *("exact Gaussian process, n = 50,000, 1 metric: condition",),
    ]
    assert questions[: len(wanted)] == wanted


def test_all_is_measured_printed_and_drawn_by_one_process(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cuda, "_TIMES", 1)
    cuda.main([*TINY, "--results", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    assert "WRONG" not in printed
    checks = json.loads((tmp_path / "cuda_checks.json").read_text())["checks"]
    assert all(check["right"] for check in checks)
    assert len(checks) == 6
    assert len(list(tmp_path.iterdir())) <= 8
    drawn = table(tmp_path)
    assert "not measured" not in drawn
    report = json.loads((tmp_path / "speed_cuda_rows.json").read_text())["benchmarks"]
    assert len(report) == len(rows.rows(CPU, rows.Sizes().scaled(0.0005)))
    for result in report:
        assert result["extra_info"]["median"] > 0
        assert result["extra_info"]["scale"] == 0.0005
        assert result["extra_info"]["who"] in drawn
        assert result["group"].removesuffix(", cpu") in printed


def row(who, prepare):
    return Row("a question", who, "ours", 1, prepare)


def test_each_row_is_written_when_it_is_there_and_one_that_fails_ends_no_other(
    tmp_path, capsys, monkeypatch
):
    def written():
        path = tmp_path / "speed_cuda_rows.json"
        return [r["name"] for r in json.loads(path.read_text())["benchmarks"]]

    def fails():
        raise torch.OutOfMemoryError("CUDA out of memory")

    def last():
        assert written() == ["first"]  # before the last has run
        return lambda: None

    chosen = [row("first", lambda: lambda: None), row("too large", fails), row("last", last)]
    monkeypatch.setattr(rows, "rows", lambda device, sizes: chosen)
    cuda.measure("rows", CPU, 1.0, tmp_path, time.monotonic() + 60)
    assert written() == ["first", "last"]
    assert "FAILED: a question: too large: OutOfMemoryError: CUDA out of" in capsys.readouterr().out


def test_nothing_starts_when_the_time_is_up(tmp_path, capsys):
    cuda.measure("growth", CPU, 0.001, tmp_path, time.monotonic() - 1)
    cuda.check(CPU, tmp_path, time.monotonic() - 1)
    lines = capsys.readouterr().out.splitlines()
    assert all("no time left" in line for line in lines)
    assert len(lines) == 5 + 6
    assert not list(tmp_path.iterdir())


def test_a_check_that_fails_is_named(tmp_path, capsys, monkeypatch):
    from bench.device import checks, launches

    monkeypatch.setattr(checks, "TOLERANCE", -1.0)
    monkeypatch.setattr(launches, "ROUNDS", 1)
    cuda.check(CPU, tmp_path, time.monotonic() + 60)
    assert "WRONG: moments are the CPU's: AssertionError: relative difference 0" in (
        capsys.readouterr().out
    )


def test_the_wheels_are_asked_for_by_one_command(tmp_path):
    command = wheels.download(tmp_path, "3.12")
    assert command[1:4] == ["-m", "pip", "download"]
    assert command[command.index("--python-version") + 1] == "3.12"
    assert command[-3:] == ["pydantic", "pyyaml", "narwhals"]
    with pytest.raises(SystemExit, match=r"has no wheels; make them with: python -m bench.device"):
        wheels.install(tmp_path)
    (tmp_path / "broken-1.0-py3-none-any.whl").write_text("no archive")
    with pytest.raises(SystemExit, match="pip cannot install the wheels"):
        wheels.install(tmp_path)


def test_the_rows_need_torch_and_numpy_alone(tmp_path):
    names = ("pydantic", "yaml", "narwhals", "gpytorch", "botorch", "pytest", "sqlalchemy")
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from bench import cuda
cuda._TIMES = 1
cuda.main([*{TINY!r}, "--results", {str(tmp_path)!r}, "--only", "checks", "rows", "peers"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cuda.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "FAILED" not in done.stdout
    assert "skipped: the same ask twice, and after resume: bit for bit: not checked: " in (
        done.stdout
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_rows_say_so(tmp_path):
    cuda.main(["--scale", "0.002", "--results", str(tmp_path), "--only", "rows"])
    report = json.loads((tmp_path / "speed_cuda_rows.json").read_text())
    assert report["machine_info"]["device"] == torch.cuda.get_device_name()
    assert all(result["group"].endswith(", cuda") for result in report["benchmarks"])
