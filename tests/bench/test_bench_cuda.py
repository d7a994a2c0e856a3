"""The benchmarks on a device: what is run, what is refused, what is written; at tiny size here."""

import json

import pytest
import torch

from bench import cuda
from bench.speed.table import FILES, table

# What needs no peer and no compiler.
FAST = "not compile and not pandas and not polars and not float32"


def test_every_question_is_asked_on_the_device(tmp_path):
    jobs = cuda.commands(tmp_path, "cuda:1", 1.0, cuda.NAMES)
    assert list(jobs) == [*(f"speed_cuda_{name}.json" for name in FILES), "growth_cuda.json"]
    for name, job in jobs.items():
        assert job[job.index("--device") + 1] == "cuda:1"
        assert any(str(tmp_path / name) in word for word in job)
        assert "--quick" not in job
    for name in FILES:
        script = jobs[f"speed_cuda_{name}.json"][2]
        assert (cuda.ROOT / script).exists()
    assert "--quick" in cuda.commands(tmp_path, "cuda", 0.5, ["growth"])["growth_cuda.json"]
    chosen = cuda.commands(tmp_path, "cpu", 0.5, ["paths"], "ours")
    assert list(chosen) == ["speed_cuda_paths.json"]
    job = chosen["speed_cuda_paths.json"]
    assert (job[job.index("-k") + 1], job[job.index("--scale") + 1]) == ("ours", "0.5")


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


def test_questions_are_measured_printed_and_drawn(tmp_path, capsys):
    results = tmp_path / "results"
    size = ["--scale", "0.002", "-k", FAST, "--only", "selection"]
    cuda.main(["--device", "cpu", "--results", str(results), *size])
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    assert "speed_cuda_selection.json: " in printed
    report = json.loads((results / "speed_cuda_selection.json").read_text())["benchmarks"]
    assert report
    drawn = table(results)
    assert "not measured" not in drawn
    for result in report:
        assert result["extra_info"]["median"] > 0
        assert result["extra_info"]["scale"] == 0.002
        assert (
            f"{result['extra_info']['median']:.4g} s  {result['group']}: {result['name']}\n"
            in printed
        )
        assert result["extra_info"]["who"] in drawn
    assert [p.name for p in results.iterdir()] == ["speed_cuda_selection.json"]


def test_one_question_that_fails_does_not_end_the_others(tmp_path, capfd):
    (tmp_path / "speed_cuda_b.json").write_text("an older run")
    results = {"group": "q", "name": "n", "extra_info": {"median": 0.25}}
    (tmp_path / "found.json").write_text(json.dumps({"benchmarks": [results]}))
    write = "import shutil; shutil.copy('found.json', 'speed_cuda_c.json'); print('one passed')"
    hang = "open('speed_cuda_d.json', 'w'); import time; time.sleep(600)"
    here = f"import os; os.chdir({str(tmp_path)!r}); "
    jobs = {
        "speed_cuda_a.json": ["-c", "print('no'); raise SystemExit(3)"],
        "speed_cuda_b.json": ["-c", "pass"],
        "speed_cuda_c.json": ["-c", here + write],
        "speed_cuda_d.json": ["-c", here + hang],
        "growth_cuda.json": ["-c", "raise SystemExit('never begun')"],
    }
    cuda.measure(jobs, tmp_path, 3.0)
    printed = capfd.readouterr().out.splitlines()
    assert printed[0].startswith("speed_cuda_a.json: ")
    assert printed[0].endswith("FAILED")
    assert printed[1] == "    no"
    assert printed[2].startswith("speed_cuda_b.json: ")  # nothing is printed of an older run
    assert printed[3].endswith("one passed")
    assert printed[4] == "    0.25 s  q: n"
    assert printed[5].endswith("stopped: the time was up")
    assert printed[6] == "growth_cuda.json: no time left"
    assert (tmp_path / "speed_cuda_b.json").read_text() == "an older run"
    assert not (tmp_path / "speed_cuda_d.json").exists()  # empty, it would spoil the table


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_rows_say_so(tmp_path):
    size = ["--scale", "0.002", "-k", FAST, "--only", "selection"]
    cuda.main(["--results", str(tmp_path), *size])
    report = json.loads((tmp_path / "speed_cuda_selection.json").read_text())
    assert report["machine_info"]["device"] == torch.cuda.get_device_name()
    assert all(result["group"].endswith(", cuda") for result in report["benchmarks"])
