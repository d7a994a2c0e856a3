"""Commands write over files of their own kind only: nothing else is lost by a mistyped path."""

import json
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cron_platform import Platform

import hyperzero_torch as hz
from hyperzero_torch.live.telemetry import Telemetry
from hyperzero_torch.runtime.places import Kind, check_place, described
from hyperzero_torch.study.plan import PLAN_FILE
from hyperzero_torch.testing.platforms import example_plan

LIVE = {"exposures": "x/*.parquet", "events": "e/*.parquet", "flags": "flags.json"}


@pytest.fixture
def platform(tmp_path, capsys):
    platform = Platform(tmp_path, capsys)
    platform.start()
    code, _, err = platform.step("--plan", tmp_path / "plan_0.json")
    assert code == 0, err
    return platform


def everything(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def foreign(folder):
    """Files of other kinds by name, each of which a command was once seen to replace."""
    with sqlite3.connect(folder / "other.db") as connection:
        connection.execute("create table kept (x)")
        connection.commit()
    connection.close()
    (folder / "key.txt").write_text("a secret of 40 characters, which is a key")
    (folder / "package.json").write_text('{"name": "app", "version": "1.0"}')
    (folder / "table.json").write_text(
        '{"kind": "hyperzero-torch assignment table", "round": 1, "arms": []}'
    )
    (folder / "page.html").write_text("<!doctype html>\n<title>My own</title>")
    (folder / "hour.csv").write_text("round,candidate\n0,0\n")
    (folder / "binary").write_bytes(bytes(range(256)))
    return ["other.db", "key.txt", "package.json", "table.json", "page.html", "hour.csv", "binary"]


COMMANDS = {
    "step": lambda c: ("step", "-c", c, "--round", "1", "--plan"),
    "pause": lambda c: ("pause", "-c", c, "--reason", "r", "--plan"),
    "withdraw": lambda c: ("withdraw", "-c", c, "--reason", "r", "--plan"),
    "stop": lambda c: ("stop", "1", "-c", c, "--reason", "r", "--plan"),
    "rollback": lambda c: ("rollback", "-c", c, "--to-round", "0", "--reason", "r", "--plan"),
    "report": lambda c: ("report", "-c", c, "--out"),
    "simulate": lambda c: ("simulate", "--rounds", "1", "--report"),
    "run": lambda c: ("run", "--world", "value-model", "--rounds", "1", "--metrics-file"),
    "init": lambda c: ("init", "--force"),
    "export": lambda c: (
        "transfer", "export", "-c", c, "--expires", "30d", "--scope", "feed", "--out",
    ),
    "compare": lambda c: ("transfer", "compare", "-c", c, "--html"),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_writes_over_a_file_of_another_kind(platform, command, monkeypatch):
    pytest.importorskip("plotly")
    monkeypatch.chdir(platform.folder)
    names = [*foreign(platform.folder), "study.db"]
    if command != "init":
        names.append("tuning.yaml")
    before = everything(platform.folder)
    for name in names:
        code, _, err = platform.run(*COMMANDS[command](platform.config), name)
        assert code == 3, (name, err)
        assert "name another" in err.lower(), (name, err)
        assert "secret" not in err
        assert everything(platform.folder) == before


def test_a_file_that_is_not_there_yet_may_be_the_studys_own(tmp_path, capsys):
    """The journal and the flags are made by the command itself: they are refused by name."""
    platform = Platform(tmp_path, capsys)
    platform.start()
    text = platform.config.read_text() + f"live: {json.dumps(LIVE)}\n"
    platform.config.write_text(text)
    for name in ("study.db", "study.db-wal", "flags.json", "./study.db"):
        code, _, err = platform.step("--plan", tmp_path / name)
        assert code == 3
        assert "name another file" in err
    assert [p.name for p in tmp_path.iterdir()] == ["tuning.yaml"]
    pytest.importorskip("prometheus_client")
    code, _, err = platform.run(
        "run", "-c", platform.config, "--metrics-file", tmp_path / "flags.json"
    )
    assert (code, [p.name for p in tmp_path.iterdir()]) == (3, ["tuning.yaml"]), err


def test_files_of_their_own_kind_and_empty_ones_are_replaced(platform):
    plan = platform.folder / "plan_0.json"
    before = plan.read_bytes()
    (platform.folder / "empty").touch()
    for path in (plan, platform.folder / "empty"):
        code, _, err = platform.step("--round", "0", "--plan", path)
        assert code == 0, err
        assert path.read_bytes() == before
    code, _, err = platform.run(
        "withdraw", "-c", platform.config, "--reason", "an incident", "--plan", plan
    )
    assert code == 0, err
    assert json.loads(plan.read_text())["round"] is None
    code, _, err = platform.run(
        "resume", "-c", platform.config, "--reason", "it is over", "--plan", plan
    )
    assert code == 0, err
    assert plan.read_bytes() == before
    assert platform.run("init", platform.config, "--force")[0] == 0


@pytest.mark.parametrize("command", ["demo", "run"])
def test_a_simulation_leaves_the_folder_of_a_study_alone(platform, command):
    before = everything(platform.folder)
    world = ("--world", "value-model") if command == "run" else ()
    code, _, err = platform.run(command, *world, "--rounds", "1", "--out", platform.folder)
    assert code == 3
    assert "not only a simulation's" in err
    assert everything(platform.folder) == before
    (platform.folder / "study.db").write_text("a text")
    code, _, err = platform.run(command, *world, "--rounds", "1", "--out", platform.folder)
    assert code == 4
    assert (platform.folder / "study.db").read_text() == "a text"


def test_in_python_too(tmp_path):
    pytest.importorskip("prometheus_client")
    names = foreign(tmp_path)
    before = everything(tmp_path)
    for name in names:
        for write in (example_plan(1, (1.0,)).write, Telemetry("a").write):
            with pytest.raises(hz.ConfigError, match="was not changed"):
                write(tmp_path / name)
    assert everything(tmp_path) == before
    example_plan(1, (1.0,)).write(tmp_path / "plan.json")
    example_plan(2, (0.5, 0.5)).write(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["round"] == 2
    Telemetry("a").write(tmp_path / "m.prom")
    Telemetry("b").write(tmp_path / "m.prom")
    with pytest.raises(hz.ConfigError, match="not metrics of a loop"):
        Telemetry("a").write(tmp_path / "plan.json")


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("pipe", "dangling", "circle", ".", "no/plan.json", "pipe/plan.json"):
        with pytest.raises(hz.ConfigError, match="cannot be written"):
            example_plan(1, (1.0,)).write(tmp_path / name)
    with pytest.raises(hz.ConfigError, match="cannot be written"):
        example_plan(1, (1.0,)).write("/dev/null")
    assert Path("/dev/null").is_char_device()


@given(content=st.binary(min_size=1, max_size=300))
def test_any_other_content_is_kept(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(content)
    with pytest.raises(hz.ConfigError, match="holds something else"):
        check_place(path, "the plan", PLAN_FILE)
    assert path.read_bytes() == content
    assert described(content)
    check_place(path, "anything", Kind("anything", lambda _: True))
