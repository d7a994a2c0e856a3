"""``hyperzero report --watch``: the file follows the study, until it is told to stop."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from support.troubled_study import CONFIG, METRICS, make, play

import hyperzero_torch as hz
from hyperzero_torch.cli import main, report
from hyperzero_torch.cli.report import watch_study

START = [sys.executable, "-c", "from hyperzero_torch.cli import main; main()", "report"]


@pytest.fixture
def study(tmp_path):
    """A study file, and a tuner on its journal."""
    problem = make().problem
    parameters = [
        {"kind": "float", "name": "w_watch", "low": 0.0, "high": 1.0},
        {"kind": "float", "name": "w_share <i>", "low": 0.1, "high": 10.0, "log": True},
        {"kind": "int", "name": "depth", "low": 1, "high": 6},
        {"kind": "choice", "name": "mode", "options": ["calm", "fresh & new", "<mixed>"]},
    ]
    written = {
        "study": "troubled",
        "seed": 3,
        "parameters": parameters,
        "base": dict(problem.base),
        "metrics": list(METRICS),
        "objective": "watch + 0.2 * `share <b>`",
        "constraints": ["reports <= 3%", "`share <b>` >= -8%"],
    }
    (tmp_path / "tuning.yaml").write_text(yaml.safe_dump(written))
    return make(f"sqlite:///{tmp_path / 'study.db'}", CONFIG)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_follows_the_study_line_by_line_until_it_is_told_to_stop(study, tmp_path, number):
    page, log = tmp_path / "report.html", tmp_path / "log.txt"
    arguments = ["-c", str(tmp_path / "tuning.yaml"), "-o", str(page), "--watch", "--every", "1"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*START, *arguments], stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    try:
        wait_for(lambda: "waiting for the first round" in log.read_text())
        assert not page.exists()
        play(study, 1)
        wait_for(lambda: page.exists() and "round 0," in log.read_text())
        text = page.read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        assert "var reloadEvery=1.0;" in text
        before = page.stat().st_mtime_ns
        time.sleep(2.5)
        settled = log.read_text()
        play(study, 1)
        wait_for(lambda: "round 1," in log.read_text() and page.stat().st_mtime_ns > before)
        assert log.read_text().startswith(settled)
        assert page.read_text(encoding="utf-8").endswith("</html>\n")
    finally:
        process.send_signal(number)
        code = process.wait(30)
    assert code == 0
    lines = log.read_text().splitlines()
    assert lines[-1].startswith("stopped")
    assert sum("waiting" in line for line in lines) == 1
    assert 2 <= sum("wrote" in line for line in lines) <= 5
    assert sorted(p.name for p in tmp_path.glob("*report*")) == ["report.html"]


def stopping(monkeypatch, looks):
    """So many looks, then Ctrl-C."""
    left = iter(range(looks - 1))

    def sleep(_):
        if next(left, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(report, "_pause", sleep)


def test_nothing_new_writes_nothing(study, tmp_path, monkeypatch, capsys):
    play(study, 1)
    stopping(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        watch_study(study, tmp_path / "report.html", "lcb", 1.0)
    assert capsys.readouterr().err.count("wrote") == 1


def test_a_journal_that_is_away_is_waited_for_and_said_once(study, tmp_path, monkeypatch, capsys):
    play(study, 1)
    stopping(monkeypatch, 5)
    sync, asked = study.study.sync, iter(range(9))

    def away():
        if next(asked) in (1, 2):
            raise hz.JournalError("the database is away")
        return sync()

    monkeypatch.setattr(study.study, "sync", away)
    with pytest.raises(KeyboardInterrupt):
        watch_study(study, tmp_path / "report.html", "lcb", 1.0)
    stderr = capsys.readouterr().err
    assert stderr.count("trying again: the database is away") == 1
    assert stderr.count("wrote") == 1


def test_a_full_disk_ends_the_first_report_but_not_the_next(study, tmp_path, monkeypatch, capsys):
    play(study, 1)
    with pytest.raises(hz.ConfigError, match="no folder"):
        watch_study(study, tmp_path / "nowhere" / "report.html", "lcb", 1.0)
    page = tmp_path / "report.html"
    replace, tries = os.replace, iter(range(9))

    def full(*paths):
        if next(tries) == 1:
            raise OSError(28, "No space left on device")
        replace(*paths)

    monkeypatch.setattr(os, "replace", full)
    looks = iter(range(3))

    def sleep(_):
        if next(looks, None) is None:
            raise KeyboardInterrupt
        if not list(tmp_path.glob("done")):
            (tmp_path / "done").touch()
            study.ask()

    monkeypatch.setattr(report, "_pause", sleep)
    with pytest.raises(KeyboardInterrupt):
        watch_study(study, page, "lcb", 1.0)
    stderr = capsys.readouterr().err
    assert stderr.count("not written, trying again") == 1
    assert stderr.count("wrote") == 2
    assert [p.name for p in tmp_path.glob("*report*")] == ["report.html"]


@pytest.mark.parametrize("every", ["0", "-3", "nan", "soon", "1e9"])
def test_what_is_no_interval_is_wrong_usage(study, tmp_path, every, capsys):
    with pytest.raises(SystemExit) as end:
        main(["report", "-c", str(tmp_path / "tuning.yaml"), "--watch", "--every", every])
    assert end.value.code == 2
    assert "--every" in capsys.readouterr().err


def test_without_a_study_there_is_nothing_to_watch(tmp_path, study, capsys):
    (tmp_path / "study.db").unlink()
    with pytest.raises(SystemExit) as end:
        main(["report", "-c", str(tmp_path / "tuning.yaml"), "--watch"])
    assert end.value.code == 3
    assert "hyperzero step" in capsys.readouterr().err
