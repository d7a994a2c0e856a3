"""Version, completion, ``status --json``, ``watch``, the parameters in ``explain``, a quiet end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.cron_platform import Platform
from support.looks import looks

import hyperzero_torch as hz
from hyperzero_torch.cli import watch as watching

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "cron.md"
PROGRAM = [sys.executable, "-c", "from hyperzero_torch.cli import main; main()"]


@pytest.fixture
def platform(tmp_path, capsys):
    return Platform(tmp_path, capsys)


def hour(platform, number):
    readings = () if number == 0 else ("--readings", platform.readings(platform.plan(number - 1)))
    code, _, err = platform.step(*readings, "--plan", platform.folder / f"plan_{number}.json")
    assert code == 0, err


def plan(platform):
    """Another process plans a round."""
    hz.Tuner.resume(f"sqlite:///{platform.folder / 'study.db'}", "feed").ask()


def test_the_version(platform):
    assert platform.run("--version") == (0, f"hyperzero {hz.__version__}\n", "")


def test_the_shell_completes_commands_and_options():
    def completed(*words):
        environment = os.environ | {
            "_HYPERZERO_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(["hyperzero", *words]),
            "COMP_CWORD": str(len(words)),
        }
        code = "import sys; sys.argv = ['hyperzero']; from hyperzero_torch.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("wat") == ["watch"]
    assert "--every" in completed("watch", "--e")


def test_the_keys_of_the_status_are_those_that_the_page_lists(platform):
    platform.start()
    for number in range(2):
        hour(platform, number)
    code, out, _ = platform.run("status", "-c", platform.config, "--json")
    assert code == 0
    facts = json.loads(out)
    text = PAGE.read_text(encoding="utf-8").partition("## The status for programs")[2]
    listed = re.findall(r"^\| `([a-z_]+)` \|", text.partition("\n## ")[0], re.M)
    assert sorted(listed) == sorted(facts)
    assert facts["rounds"][-1].keys() == {"round", "arms", "control_share", "waiting"}


def test_watch_shows_each_round_once_and_ends_with_ctrl_c(platform, monkeypatch):
    platform.start()
    hour(platform, 0)
    looks(monkeypatch, lambda: None, lambda: plan(platform), lambda: None)
    code, out, err = platform.run("watch", "-c", platform.config, "--json")
    assert code == 0
    assert [json.loads(line)["last_round"] for line in out.splitlines()] == [0, 1]
    assert err.endswith("stopped\n")
    looks(monkeypatch, lambda: None)
    code, out, _ = platform.run("watch", "-c", platform.config, "--always")
    assert code == 0
    assert out.count("study feed: last round 1") == 2


def test_watch_waits_for_a_journal_that_is_away(platform, monkeypatch):
    platform.start()
    hour(platform, 0)
    read = watching.open_study

    def opened(config):
        tuner = read(config)
        sync = tuner.study.sync
        answers = iter([sync, _away, _away, sync])
        tuner.study.sync = lambda: next(answers, sync)()
        return tuner

    def _away():
        raise hz.JournalError("the database is away")

    monkeypatch.setattr(watching, "open_study", opened)
    looks(monkeypatch, *(lambda: None,) * 3)
    code, out, err = platform.run("watch", "-c", platform.config)
    assert code == 0
    assert out.count("last round 0") == 1
    assert err.count("the database is away") == 1


def test_a_loop_that_has_died_shows_in_status_and_watch(platform, monkeypatch):
    platform.start()
    hour(platform, 0)
    hours = [0]

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=hours[0])

    monkeypatch.setattr("hyperzero_torch.tuner.status.datetime", Later)
    sentence = "No round was planned for 5 hours; one is due every 60 minutes"
    looks(monkeypatch, lambda: None, lambda: hours.append(hours.pop() + 5), lambda: None)
    _, out, _ = platform.run("watch", "-c", platform.config)
    first, _, second = out.partition("study feed: last round 0")[2].partition("study feed: ")
    assert sentence not in first
    assert sentence in second
    assert out.count("study feed: last round 0") == 2
    _, out, _ = platform.run("status", "-c", platform.config)
    assert out.splitlines()[1] == sentence
    assert "ACT Planning: no round was planned for 5 hours" in out


def test_watch_refuses_what_status_refuses(platform):
    platform.start()
    for command in ("status", "watch"):
        code, out, err = platform.run(command, "-c", platform.config)
        assert (code, out) == (3, "")
        assert "hyperzero step" in err
    assert platform.run("watch", "-c", platform.config, "--every", 0)[0] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_watches_ends_cleanly(platform, number):
    platform.start()
    hour(platform, 0)
    with subprocess.Popen(
        [*PROGRAM, "watch", "-c", platform.config, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert json.loads(process.stdout.readline())["last_round"] == 0
        time.sleep(0.2)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "stopped\n")


def test_explain_shows_the_parameters_of_each_arm(platform, monkeypatch):
    monkeypatch.setattr("hyperzero_torch.cli.explain.console.width", 400)
    platform.start()
    hour(platform, 0)
    code, out, _ = platform.run("explain", "-c", platform.config, "--all")
    assert code == 0
    for arm in platform.plan(0)["arms"]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in arm["parameters"].items())
        assert values in out


def test_explain_fits_a_terminal_of_80_columns(platform, monkeypatch):
    """The arms with most traffic, each in a few lines; the others are counted."""
    monkeypatch.setattr("hyperzero_torch.cli.explain.console.width", 80)
    monkeypatch.setattr("hyperzero_torch.cli.explain._MOST_ARMS", 5)
    platform.start()
    hour(platform, 0)
    code, out, _ = platform.run("explain", "-c", platform.config)
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines == [line.rstrip() for line in lines]
    assert len(lines) < 40
    arms = platform.plan(0)["arms"]
    rest = sorted(arm["share"] for arm in arms[1:])[:-5]
    assert f"and {len(rest)} more arms with {sum(rest):.1%} of the traffic" in out
    everything = platform.run("explain", "-c", platform.config, "--all")[1]
    assert "more arms" not in everything
    assert len(re.findall(r"^ +\d+ +[\d.]+%", everything, re.M)) == len(arms)


def test_no_library_has_the_last_word(tmp_path):
    pytest.importorskip("duckdb")
    pytest.importorskip("openfeature.contrib.provider.flagd")
    done = subprocess.run(
        [*PROGRAM, "run", "--world", "value-model", "--rounds", "1", "--users", "200",
         "--out", tmp_path / "living"],
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    assert re.search(r"stopped after 1 round; \d+ new readings recorded\n\Z", done.stderr)
