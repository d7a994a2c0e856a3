"""The live system with real parts: flags by OpenFeature, Parquet by DuckDB, a clock, signals."""

import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import hyperzero_torch as hz
from hyperzero_torch.cli import main
from hyperzero_torch.live import Aggregator, ParquetSource
from hyperzero_torch.live.build import metrics_of, source_of, updater_of
from hyperzero_torch.live.round import Round
from hyperzero_torch.live.simulated import LivingRecommender, closed_circle
from hyperzero_torch.live.telemetry import JsonFormatter, Telemetry
from hyperzero_torch.simulate.recommender.world import ValueModelWorld
from hyperzero_torch.study.config import LiveConfig, StudyConfig

pytest.importorskip("duckdb")
pytest.importorskip("openfeature.contrib.provider.flagd")

CONFIG = hz.TunerConfig(
    num_draws=60, num_samples=64, num_proposals=1, initial_candidates=6, num_starts=0,
    verification_share=0.0,
)  # fmt: skip
HYPERZERO = [str(Path(sys.executable).parent / "hyperzero")]


@pytest.fixture(scope="module")
def circle(tmp_path_factory):
    """Five hours of the living recommender behind real parts."""
    folder = tmp_path_factory.mktemp("living")
    world = ValueModelWorld(3, num_users=3000, panel=500)
    app = LivingRecommender(world, folder)
    tuner = hz.Tuner(world.problem, CONFIG, f"sqlite:///{folder / 'study.db'}", "living", 3)
    try:
        done = list(closed_circle(tuner, app).run(6))
    finally:
        app.close()
    return world, folder, tuner, done


def test_the_circle_closes(circle):
    _, folder, tuner, done = circle
    assert [d.round for d in done] == list(range(6))
    assert all(d.applied for d in done)
    assert sum(d.rows for d in done) > 0
    assert bool(tuner.bucket().tested.any())
    assert len(list((folder / "exposures").glob("*.parquet"))) == 5  # the last is being served
    assert not [d for d in tuner.history.decisions if d.kind in ("warehouse", "platform")]
    flags = json.loads((folder / "flags.json").read_text())
    assert "value-model" in flags["flags"]


def test_what_the_tuner_holds_is_what_the_users_did(circle):
    """Counts and means in the journal against the Parquet log, counted here by pandas."""
    import pandas as pd

    _, folder, tuner, _ = circle
    exposures = pd.concat(pd.read_parquet(p) for p in (folder / "exposures").glob("*.parquet"))
    events = pd.concat(pd.read_parquet(p) for p in (folder / "events").glob("*.parquet"))
    exposures = exposures.drop_duplicates()
    arms = exposures.groupby(["round", "user"])["candidate"].transform("nunique")
    assert int(arms.max()) == 1  # the flag client keeps a user in one arm all round long
    clicks = events[events.metric == "clicks"].groupby(["round", "user"])["value"].sum()
    bots = events.groupby(["round", "user"]).size()
    for round_, table in tuner.history.tables.items():
        users = exposures[exposures["round"] == round_].set_index("user")["candidate"]
        if (table.revision < 0).all() or round_ > 0:
            continue
        honest = [u for u in users.index if bots.get((round_, u), 0) <= 1000]
        users = users[honest]
        value = pd.Series({u: clicks.get((round_, u), 0.0) for u in users.index})
        column = list(tuner.problem.metrics).index("clicks")
        for candidate, row in table.row.items():
            mine = users[users == candidate].index
            if table.revision[row, column] >= 0:
                assert table.count[row, column] == len(mine)
                assert table.mean[row, column] == pytest.approx(value[mine].mean(), rel=1e-9)


def test_late_events_came_as_revisions(circle):
    _, _, tuner, _ = circle
    assert max(int(t.revision.max()) for t in tuner.history.tables.values()) >= 2


def test_planned_shares_are_served(circle):
    import pandas as pd

    _, folder, tuner, _ = circle
    exposures = pd.concat(pd.read_parquet(p) for p in (folder / "exposures").glob("*.parquet"))
    chi, free = 0.0, 0
    for round_, plan in tuner.history.plans.items():
        seen = exposures[exposures["round"] == round_].drop_duplicates("user")["candidate"]
        if len(seen):
            expected = len(seen) * torch.tensor(plan.shares)
            counted = torch.tensor([float((seen == c).sum()) for c in plan.candidates])
            chi += float(((counted - expected).square() / expected).sum())
            free += len(plan.candidates) - 1
    assert free > 0
    assert chi < free + 5 * (2 * free) ** 0.5


def study_file(folder, **live):
    values = {
        "study": "feed",
        "parameters": [{"kind": "float", "name": "a", "low": 0.0, "high": 1.0}],
        "base": {"a": 0.5},
        "metrics": ["views", "ctr"],
        "objective": "views",
        "constraints": ["ctr >= -50%"],
        "traffic": {"num_draws": 20, "initial_candidates": 3, "num_samples": 16, "num_starts": 0},
        "live": {
            "exposures": "log/exposures-*.parquet",
            "events": "log/events-*.parquet",
            "table": "table.json",
            "round_seconds": 0.5,
            "metrics": {"ctr": {"numerator": "clicks", "denominator": "views"}},
        }
        | live,
    }
    path = folder / "tuning.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_study_file_makes_the_parts(tmp_path):
    study = StudyConfig.from_file(study_file(tmp_path, flags="flags.json", table=None))
    metrics = metrics_of(study.live, study.metrics)
    assert [m.sources for m in metrics] == [("views",), ("clicks", "views")]
    updater = updater_of(study.live, tmp_path)
    tuner = hz.Tuner(study.problem(), study.traffic)
    updater.apply(tuner.ask())
    assert (tmp_path / "flags.json").exists()
    source = source_of(study.live, study.problem(), tmp_path)
    assert source.collect(3, {0: {0: 0.5, 1: 0.5}}).readings is None  # there is no log yet


@pytest.mark.parametrize(
    ("live", "says"),
    [
        ({"flags": "flags.json"}, "name either flags"),
        ({"table": None}, "name either flags"),
        ({"metrics": {"nobody": {}}}, r"describes \['nobody'\]"),
        ({"round_seconds": 0}, "round_seconds"),
        ({"lateness": 1}, "lateness"),
        ({"srm_alpha": 2}, "srm_alpha"),
        ({"unknown": 2}, "unknown"),
    ],
)
def test_a_live_section_that_cannot_be_is_refused(tmp_path, live, says):
    with pytest.raises(hz.ConfigError, match=says):
        StudyConfig.from_file(study_file(tmp_path, **live))


def test_run_drives_a_study_file_and_goes_on_where_it_was(tmp_path, capsys):
    path = study_file(tmp_path)
    main_(["run", "-c", str(path), "--rounds", "2", "--log", "json"])
    first = json.loads((tmp_path / "table.json").read_text())
    lines = [json.loads(x) for x in capsys.readouterr().err.splitlines() if x.startswith("{")]
    assert [x["round"] for x in lines] == sorted(x["round"] for x in lines)
    assert all(x["level"] == "info" and x["applied"] for x in lines)
    main_(["run", "-c", str(path), "--rounds", "2"])
    assert json.loads((tmp_path / "table.json").read_text())["round"] > first["round"]
    main_(["explain", "-c", str(path), "--json"])
    assert json.loads(capsys.readouterr().out)["arms"][0]["candidate"] == 0
    main_(["explain", "-c", str(path)])
    assert "nan" not in capsys.readouterr().out


def main_(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0


def test_run_says_when_no_readings_come(tmp_path, capsys):
    """A log that nobody writes to: a warning in every round from the seventh on, and at the end."""
    path = study_file(tmp_path, round_seconds=0.2)
    main_(["run", "-c", str(path), "--rounds", "8"])
    stderr = capsys.readouterr().err
    assert "no readings of the last 6 rounds have arrived" in stderr
    stopped, warning = stderr.splitlines()[-2:]
    assert stopped == "stopped after 8 rounds; 0 new readings recorded"
    assert "warning: no readings of the last" in warning


def test_a_world_runs_in_a_folder_that_is_named_relatively(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main_(["run", "--world", "value-model", "--rounds", "3", "--users", "1000", "--out", "a/b"])
    stderr = capsys.readouterr().err
    assert "Traceback" not in stderr
    rows = [int(n) for n in re.findall(r"round \d+: (\d+) new rows", stderr)]
    assert rows[0] == 0
    assert all(rows[1:])
    assert f"stopped after 3 rounds; {sum(rows):,} new readings recorded" in stderr
    assert sorted(p.name for p in tmp_path.rglob("*") if p.suffix != ".parquet") == [
        "a", "b", "events", "exposures", "flags.json", "living.yaml", "study.db",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path / "a")
    main_(["status", "-c", "b/living.yaml", "--json"])
    status = json.loads(capsys.readouterr().out)
    assert (status["study"], status["last_round"]) == ("living", 2)
    main_(["withdraw", "-c", "b/living.yaml", "--reason", "a look"])
    assert "only the control is served" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    path = study_file(tmp_path)
    main_(["run", "-c", str(path), "--dry-run"])
    assert "nothing was written" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tuning.yaml"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "name a study file with --config, or a world"),
        (["run", "--world", "value-model", "--dry-run"], "--dry-run is for --config"),
        (["run", "-c", "tuning.yaml", "--world", "value-model"], "name a study file"),
        (["run", "-c", "nowhere.yaml"], "cannot be read"),
    ],
)
def test_wrong_calls_say_what_is_wrong(arguments, says, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 3
    assert says in capsys.readouterr().err


def test_without_a_live_section_run_says_so(tmp_path, capsys):
    path = study_file(tmp_path)
    values = yaml.safe_load(path.read_text())
    del values["live"]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(SystemExit):
        main(["run", "-c", str(path)])
    assert "has no 'live' section" in capsys.readouterr().err


def test_rollback_and_set_aside_by_command(tmp_path, capsys):
    path = study_file(tmp_path)
    for _ in range(3):
        main_(["step", "-c", str(path), "--plan", str(tmp_path / "plan.json")])
    main_(["rollback", "-c", str(path), "--to-round", "1", "--reason", "why", "--dry-run"])
    assert "2 rounds excluded" in capsys.readouterr().err
    main_(["set-aside", "-c", str(path), "--round", "0", "--reason", "an incident"])
    assert "excluded rounds: [0]" in capsys.readouterr().err
    main_(["status", "-c", str(path)])
    assert "round 0 is excluded: an incident" in capsys.readouterr().out
    main_(["set-aside", "-c", str(path), "--round", "0", "--reason", "it was none", "--undo"])
    assert "excluded rounds: none" in capsys.readouterr().err
    main_(["rollback", "-c", str(path), "--to-round", "1", "--reason", "a wrong ranker"])
    with sqlite3.connect(tmp_path / "study.db") as db:
        kinds = [row[0] for row in db.execute("select kind from decisions order by rowid")]
    db.close()
    assert kinds == ["set aside", "reinstated", "rolled back"]
    with pytest.raises(SystemExit) as ended:
        main(["rollback", "-c", str(path), "--to-round", "9", "--reason", "why"])
    assert ended.value.code == 3
    assert "round 9 was never planned" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*no readings? ha(s|ve) arrived")
def test_compact_by_command_says_first_and_deletes_with_yes(tmp_path, capsys):
    path = study_file(tmp_path)
    values = yaml.safe_load(path.read_text())
    values["traffic"] = values.get("traffic", {}) | {"block_rounds": 24}
    path.write_text(yaml.safe_dump(values))
    for _ in range(3):
        main_(["step", "-c", str(path), "--plan", str(tmp_path / "plan.json")])
    main_(["compact", "-c", str(path), "--keep", "0"])
    assert "nothing to compact: no block of 24 rounds is settled" in capsys.readouterr().err
    tuner = hz.Tuner.resume(
        f"sqlite:///{tmp_path / 'study.db'}",
        StudyConfig.from_file(path).study,
        problem=StudyConfig.from_file(path).problem(),
    )
    plan = tuner.history.plans[0]
    for round_ in range(3, 50):
        tuner.ask(round_)
    num = len(tuner.problem.metrics)
    shape = (len(plan.candidates), num)
    tuner.tell(
        hz.Readings(
            0, plan.candidates, np.full(shape, 1000.0), np.ones(shape), np.ones(shape),
            metrics=list(tuner.problem.metrics),
        )
    )  # fmt: skip
    rows = shape[0] * shape[1]
    main_(["compact", "-c", str(path), "--keep", "24"])
    stderr = capsys.readouterr().err
    assert f"dry run: would compact {rows} readings of 24 rounds (0 to 23), from 1 mess" in stderr
    assert not tuner.study.sync().compacted
    main_(["compact", "-c", str(path), "--keep", "24", "--yes", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert (summary["done"], summary["rows"], summary["kept_from"]) == (True, rows, 24)
    main_(["status", "-c", str(path)])
    assert "rounds whose readings were compacted: 24" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["set-aside", "-c", str(path), "--round", "3", "--reason", "late"])
    assert "compacted into evidence" in capsys.readouterr().err


def test_sigterm_lets_the_round_finish_and_ends_cleanly(tmp_path):
    path = study_file(tmp_path, round_seconds=3600)
    command = [*HYPERZERO, "run", "-c", str(path), "--log", "json", "--metrics-port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        lines, port = [], None
        for line in process.stderr:
            lines.append(line)
            if line.startswith("metrics on"):
                port = line.split("/metrics")[0].rsplit(":", 1)[1]
            if '"round": 0' in line:
                break
        assert port is not None, lines
        assert 'hyperzero_rounds_total{study="feed"} 1.0' in _scrape(port)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(20) == 0
    assert "stopped" in rest
    assert "Traceback" not in "".join(lines) + rest


def _scrape(port):
    for _ in range(50):  # the round is observed just after it is logged
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        if "} 1.0" in text:
            return text
        time.sleep(0.1)
    return text


def test_log_lines_are_json_whatever_is_said():
    record = logging.makeLogRecord(
        {"msg": 'a "quote"\n%s', "args": ("ü",), "levelname": "WARNING", "round": 7, "odd": {1, 2}}
    )
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == 'a "quote"\nü'
    assert line["level"] == "warning"
    assert line["round"] == 7


def test_telemetry_counts_rounds(tmp_path):
    pytest.importorskip("prometheus_client")
    telemetry = Telemetry("a study")
    telemetry.observe(Round(0, None, False, 0, ("x", "y"), 0.5), None)
    telemetry.observe(Round(1, None, True, 12, (), 0.25, rounds_without_readings=3), None)
    telemetry.write(tmp_path / "m.prom")
    text = (tmp_path / "m.prom").read_text()
    for says in (("rounds_total", "2.0"), ("rounds_not_applied_total", "1.0"),
                 ("readings", "12.0"), ("rounds_without_readings", "3.0")):  # fmt: skip
        assert any(line.startswith(f"hyperzero_{says[0]}") and line.endswith(says[1])
                   for line in text.splitlines())  # fmt: skip
    with pytest.raises(hz.ConfigError, match="cannot be written"):
        telemetry.write(tmp_path / "nowhere" / "m.prom")


def test_an_app_that_does_not_see_the_plan_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("hyperzero_torch.live.simulated._MAX_POLLS", 2)
    app = LivingRecommender(ValueModelWorld(0, num_users=100, panel=200), tmp_path)
    try:
        with pytest.raises(hz.HyperZeroError, match="does not serve round 0"):
            app.serve(0)
    finally:
        app.close()
    assert isinstance(app.live(), LiveConfig)
    assert threading.active_count() < 20


def test_a_missing_warehouse_is_said_at_the_start(tmp_path, monkeypatch):
    study = StudyConfig.from_file(study_file(tmp_path))
    monkeypatch.setattr("hyperzero_torch.live.build.find_spec", lambda name: None)
    with pytest.raises(hz.MissingExtraError, match=r"hyperzero-torch\[duckdb\]"):
        source_of(study.live, study.problem(), tmp_path)


def test_a_warehouse_hands_over_missing_rounds_however_old(circle):
    _, folder, tuner, _ = circle
    planned = {
        r: dict(zip(p.candidates, p.shares)) for r, p in tuner.history.plans.items() if r < 5
    }
    source = ParquetSource(
        folder / "exposures" / "*.parquet",
        folder / "events" / "*.parquet",
        Aggregator(["clicks"], lateness=2),
    )
    recent = source.collect(5, planned)
    assert set(recent.readings.round.tolist()) == {4}
    collected = source.collect(5, planned, missing=[1])
    assert set(zip(collected.readings.round.tolist(), collected.readings.revision.tolist())) == {
        (4, 0),
        (1, 3),
    }
