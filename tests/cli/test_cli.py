"""The command line as a newcomer and as a cron job meet it."""

import json
import sqlite3

import pytest
import yaml
from support.cron_platform import METRICS, Platform

from hyperzero_torch import StudyConfig


@pytest.fixture
def platform(tmp_path, capsys):
    return Platform(tmp_path, capsys)


def test_init_writes_a_study_that_can_be_used_as_it_is(platform):
    code, _, err = platform.run("init", platform.config)
    assert code == 0
    assert "hyperzero step" in err
    study = StudyConfig.from_file(platform.config)
    assert study.problem().metrics == tuple(METRICS)
    assert study.traffic.num_draws == 1000
    before = platform.config.read_text()
    code, _, err = platform.run("init", platform.config)
    assert code == 3
    assert "--force" in err
    assert platform.config.read_text() == before
    assert platform.run("init", platform.config, "--force")[0] == 0
    code, out, _ = platform.run("init", platform.folder / "other.yaml", "--dry-run")
    assert code == 0
    assert "parameters:" in out
    assert not (platform.folder / "other.yaml").exists()


def test_hours_of_a_cron_job(platform):
    platform.start()
    code, _, err = platform.step("--plan", platform.folder / "plan_0.json")
    assert code == 0, err
    for hour in range(3):
        readings = platform.readings(platform.plan(hour))
        plan = platform.folder / f"plan_{hour + 1}.json"
        code, _, err = platform.step("--readings", readings, "--plan", plan)
        assert code == 0, err
        assert "recorded" in err
        assert platform.plan(hour + 1)["round"] == hour + 1
        assert sum(arm["share"] for arm in platform.plan(hour + 1)["arms"]) == pytest.approx(1)
        # The job runs twice: nothing changes and the plan is the same, byte for byte.
        before, text = platform.journal(), plan.read_bytes()
        plan.unlink()
        code, _, err = platform.step("--readings", readings, "--plan", plan)
        assert code == 0
        assert "recorded before" in err
        assert plan.read_bytes() == text
        assert platform.journal() == before

    code, out, _ = platform.run("status", "--config", platform.config, "--json")
    assert code == 0
    status = json.loads(out)
    assert status["last_round"] == 3
    assert [r["waiting"] for r in status["rounds"]][:3] == [0, 0, 0]
    assert status["in_flight"] == len(platform.plan(3)["arms"])
    code, out, _ = platform.run("status", "--config", platform.config)
    assert code == 0
    assert "last round 3" in out

    code, out, _ = platform.run("recommend", "-c", platform.config, "--json")
    assert code == 0
    best = json.loads(out)
    assert set(best["parameters"]) == {"w_click", "w_share"}
    assert best["criterion"] == "lcb"
    code, out, _ = platform.run("recommend", "-c", platform.config, "--criterion", "mean")
    assert code == 0
    assert "P(feasible)" in out
    report = platform.folder / "report.html"
    code, _, err = platform.run("report", "-c", platform.config, "--out", report)
    assert code == 0, err
    assert report.stat().st_size > 1e5


def test_the_same_rows_in_another_order_are_the_same_message(platform):
    platform.start()
    platform.step("--plan", platform.folder / "plan_0.json")
    first = platform.readings(platform.plan(0), "a.csv")
    again = platform.readings(platform.plan(0), "b.csv", change=lambda rows: rows.reverse())
    assert platform.step("--readings", first, "--plan", platform.folder / "plan_1.json")[0] == 0
    before = platform.journal()
    assert platform.step("--readings", again, "--plan", platform.folder / "plan_1.json")[0] == 0
    assert platform.journal() == before


def test_a_late_and_a_revised_hour(platform):
    platform.start()
    for number in range(3):
        platform.step("--round", number, "--plan", platform.folder / f"plan_{number}.json")
    late = platform.readings(platform.plan(1))
    assert platform.step("--readings", late, "--plan", platform.folder / "plan_3.json")[0] == 0

    def correct(rows):
        for row in rows:
            row["revision"] = 1
            row["mean"] *= 1.01

    def contradict(rows):
        for row in rows:
            row["mean"] *= 1.02

    wrong = platform.readings(platform.plan(1), "wrong.csv", contradict)
    before = platform.journal()
    code, _, err = platform.step("--readings", wrong, "--plan", platform.folder / "plan_4.json")
    assert code == 3
    assert "higher revision" in err
    assert platform.journal() == before
    fixed = platform.readings(platform.plan(1), "fixed.csv", correct)
    code, _, err = platform.step("--readings", fixed, "--plan", platform.folder / "plan_4.json")
    assert code == 0, err
    assert len(platform.journal()["readings"]) == 2 * len(before["readings"])


def spoil(key, value, rows=(1, 4)):
    def change(table):
        for row in rows:
            table[row][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (spoil("mean", "nan"), "line 3"),
        (spoil("mean", "inf"), "finite"),
        (spoil("mean", "oops"), "oops"),
        (spoil("count", -1), "negative"),
        (spoil("var", -0.5), "negative"),
        (spoil("candidate", 99, rows=(4,)), "unknown candidate 99"),
        (spoil("metric", "viewz"), "unknown metric 'viewz'"),
        (lambda rows: rows.append(rows[3]), "stands already"),
    ],
)
def test_bad_readings_change_nothing_and_name_the_rows(platform, change, says):
    platform.start()
    platform.step("--plan", platform.folder / "plan_0.json")
    before = platform.journal()
    bad = platform.readings(platform.plan(0), "bad.csv", change)
    code, out, err = platform.step("--readings", bad, "--plan", platform.folder / "plan_1.json")
    assert code == 3
    assert out == ""
    assert err.startswith("error: ")
    assert says in " ".join(err.split())
    assert "bad.csv line" in err
    assert "Traceback" not in err
    assert platform.journal() == before
    assert not (platform.folder / "plan_1.json").exists()


def test_a_half_written_file_is_refused(platform):
    platform.start()
    platform.step("--plan", platform.folder / "plan_0.json")
    whole = platform.readings(platform.plan(0))
    before = platform.journal()
    text = whole.read_bytes()
    for cut in (0, 10, len(text) // 2, len(text) - 3, len(text) - 1):
        whole.write_bytes(text[:cut].rstrip())  # cut between two rows nobody can see
        code, _, err = platform.step("--readings", whole, "--plan", platform.folder / "p.json")
        assert code == 3, cut
        assert "error: " in err
    assert platform.journal() == before


def test_a_dry_run_checks_and_writes_nothing(platform):
    platform.start()
    code, _, err = platform.step("--dry-run")
    assert code == 0
    assert "nothing was written" in err
    assert not (platform.folder / "study.db").exists()
    platform.step("--plan", platform.folder / "plan_0.json")
    before = platform.journal()
    readings = platform.readings(platform.plan(0))
    code, _, err = platform.step("--readings", readings, "--dry-run")
    assert code == 0
    assert f"{3 * len(platform.plan(0)['arms'])} new rows" in err
    assert platform.journal() == before


def test_refused_readings_do_not_even_start_a_study_or_change_its_configuration(platform):
    platform.start()
    plan = {"round": 0, "arms": [{"candidate": 0, "share": 1.0}]}
    early = platform.readings(plan, "early.csv")
    code, _, err = platform.step("--readings", early)
    assert code == 3
    assert "no round was planned yet" in err
    assert not (platform.folder / "study.db").exists()
    platform.step("--plan", platform.folder / "plan_0.json")
    before = platform.journal()
    study = yaml.safe_load(platform.config.read_text())
    study["traffic"]["num_draws"] = 41
    platform.config.write_text(yaml.safe_dump(study))
    bad = platform.readings(platform.plan(0), "bad.csv", spoil("mean", "nan"))
    unknown = platform.readings(platform.plan(0), "unknown.csv", spoil("candidate", 99, rows=(4,)))
    assert platform.step("--readings", bad)[0] == 3
    assert platform.step("--readings", unknown)[0] == 3
    assert platform.step("--dry-run")[0] == 0
    assert platform.journal() == before


def test_a_plan_that_cannot_be_written_costs_no_round(platform):
    platform.start()
    for path in (platform.folder, platform.folder / "missing" / "plan.json"):
        code, _, err = platform.step("--plan", path)
        assert code == 3
        assert "--plan" in err
    assert not (platform.folder / "study.db").exists()


def test_nothing_new_is_no_new_round(platform):
    platform.start()
    platform.step("--plan", platform.folder / "plan_0.json")
    readings = platform.readings(platform.plan(0))
    platform.step("--readings", readings, "--plan", platform.folder / "plan_1.json")
    rows = readings.read_text().splitlines(keepends=True)
    part = platform.folder / "part.csv"
    part.write_text("".join(rows[:5]))
    before = platform.journal()
    assert platform.step("--readings", part, "--plan", platform.folder / "again.json")[0] == 0
    assert json.loads((platform.folder / "again.json").read_text()) == platform.plan(1)
    assert platform.journal() == before


def test_a_metric_that_never_comes_is_named(platform):
    platform.start()
    platform.step("--plan", platform.folder / "plan_0.json")
    readings = platform.readings(
        platform.plan(0),
        change=lambda rows: rows.__setitem__(
            slice(None), [r for r in rows if r["metric"] != "watch_time"]
        ),
    )
    code, _, err = platform.step("--readings", readings, "--plan", platform.folder / "plan_1.json")
    assert code == 0
    assert "split evenly" in err
    code, out, _ = platform.run("status", "-c", platform.config)
    assert "split evenly" in out


def test_what_a_newcomer_gets_wrong(platform):
    for command in ("step", "status", "recommend", "report"):
        code, _, err = platform.run(command, "--config", platform.folder / "missing.yaml")
        assert code == 3
        assert "missing.yaml" in err
    platform.start()
    for command in ("status", "recommend", "report"):
        code, _, err = platform.run(command, "--config", platform.config)
        assert code == 3
        assert "hyperzero step" in err
        assert not (platform.folder / "study.db").exists()
    code, _, err = platform.step("--plan", platform.folder / "no" / "plan.json")
    assert code == 3
    assert "folder" in err
    assert not (platform.folder / "study.db").exists()
    assert platform.run("recommend", "-c", platform.config, "--criterion", "best")[0] == 3
    assert platform.run("step")[0] == 2
    assert platform.run("no-such-command")[0] == 2
    (platform.folder / "study.db").write_bytes(b"this is no database" * 100)
    code, _, err = platform.step()
    assert code == 4
    assert "no journal" in err


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("objective", "viewz", "did you mean 'views'"),
        ("constraints", ["watch_time >= 0.1%"], "no base can satisfy"),
        ("constraints", ["watch_time"], "bound"),
        ("base", {"w_click": 3.0, "w_share": 1.0}, "w_click"),
        ("base", {"w_click": 0.2}, "w_share"),
        ("parameters", [{"kind": "float", "name": "a", "low": 1, "high": 0}], "reversed"),
        ("parameters", [{"kind": "flaot", "name": "a", "low": 0, "high": 1}], "flaot"),
        ("metrics", ["views", "views"], "twice"),
        ("traffic", {"control_share": 2}, "control_share"),
        ("journall", "x", "journall"),
        ("journal", "nosuchdb://x", "journal"),
        ("journal", "sqlite:///:memory:", "lost when the command ends"),
    ],
)
def test_a_wrong_study_file_gets_one_clear_error(platform, key, value, says):
    platform.start()
    study = yaml.safe_load(platform.config.read_text())
    platform.config.write_text(yaml.safe_dump(study | {key: value}))
    code, _, err = platform.step()
    assert code in (3, 4)
    assert says in " ".join(err.split())
    assert "Traceback" not in err
    assert not (platform.folder / "study.db").exists()


def test_readings_that_are_set_aside_are_listed_and_accepted(platform):
    def spoil(rows):
        rows[3]["mean"] *= 100

    platform.start()
    platform.step("--plan", platform.folder / "plan_0.json")
    code, _, err = platform.step(
        "--readings", platform.readings(platform.plan(0), change=spoil),
        "--plan", platform.folder / "plan_1.json",
    )  # fmt: skip
    assert code == 0
    assert "Set aside: 1 readings" in err
    study = ("-c", platform.config)
    code, out, _ = platform.run("status", *study)
    assert "1 readings are set aside" in out
    assert "fifty times" in out
    code, out, _ = platform.run("readings", "list", *study, "--json")
    (group,) = json.loads(out)
    assert (code, group["rounds"], group["readings"], group["code"]) == (0, [0], 1, "level")
    assert "fifty times" in platform.run("readings", "list", *study)[1]
    code, _, err = platform.run("readings", "accept", *study, "--round", 7, "--reason", "a sale")
    assert code == 3
    assert "readings list" in err
    code, _, err = platform.run("readings", "accept", *study, "--round", 0, "--reason", "a sale")
    assert (code, err.strip()) == (0, "1 readings count; 0 are still set aside")
    assert "no reading is set aside" in platform.run("readings", "list", *study)[2]
    assert platform.journal()["decisions"][-1][3] == "readings accepted"
    code, _, err = platform.run("candidates", "readmit", *study, "--candidate", 1, "--reason", "x")
    assert code == 3
    assert "not stopped" in err


def test_help_teaches(platform):
    code, out, _ = platform.run("--help")
    assert code == 0
    for command in (
        "demo", "init", "step", "status", "recommend", "report", "simulate", "run", "explain",
        "rollback", "set-aside", "compact",
    ):  # fmt: skip
        assert command in out
        code, text, _ = platform.run(command, "--help")
        assert code == 0
        assert "Usage" in text
        example = text[text.index("Example") :]
        assert f"hyperzero {command}" in example
    assert "Exit codes" in out


def test_simulate_prints_a_table_or_json(platform):
    config = platform.folder / "small.yaml"
    config.write_text("num_draws: 40\nnum_samples: 128\nnum_starts: 0\ninitial_candidates: 9\n")
    code, out, err = platform.run("simulate", "--rounds", 6, "--config", config, "--json")
    assert code == 0, err
    rounds = [json.loads(line) for line in out.splitlines()]
    assert [r["round"] for r in rounds] == list(range(6))
    url = f"sqlite:///{platform.folder / 'sim.db'}"
    arguments = ("simulate", "--rounds", 3, "--config", config, "--journal", url)
    code, out, _ = platform.run(*arguments)
    assert code == 0
    assert "oracle" in out
    code, _, err = platform.run(*arguments)
    assert code == 3
    assert "--resume" in err
    code, out, _ = platform.run(*arguments, "--resume", "--rounds", 5)
    assert code == 0
    assert "  3  " in out
    assert "  2  " not in out.split("true gain")[1].splitlines()[1]
    for wrong in (
        ("--traffic", "0"),
        ("--experiment", "x"),
        ("--world", "replay", "--experiment", "x"),
        ("--dims", "3"),
    ):
        assert platform.run("simulate", *wrong)[0] == 3
    assert platform.run("simulate", "--world", "mars")[0] == 2
    assert platform.run("simulate", "--resume")[0] == 3
    page = platform.folder / "sim.html"
    arguments = ("simulate", "--rounds", 4, "--config", config, "--json", "--report", page)
    assert platform.run(*arguments)[0] == 0
    assert page.exists()
    assert platform.run("demo", "--out", config)[0] == 3


def test_the_demo_is_the_main_job(platform):
    out = platform.folder / "demo"
    code, text, err = platform.run("demo", "--out", out, "--rounds", 8)
    assert code == 0, err
    for column in ("true gain", "violation", "P(feas.)", "arms", "bucket", "in flight"):
        assert column in text
    assert "oracle" in text
    assert "base" in text
    assert (out / "report.html").exists()
    with sqlite3.connect(out / "study.db") as connection:
        assert connection.execute("select max(round) from plans").fetchone() == (7,)
    # The other commands read it by the study file that is beside the journal.
    file = out / "demo.yaml"
    assert f"hyperzero status -c {file}" in text
    for command in ("status", "recommend", "doctor"):
        code, shown, err = platform.run(command, "-c", file, *["--json"][command == "doctor" :])
        assert code == 0, err
        assert json.loads(shown) if command != "doctor" else shown
    assert platform.run("pause", "-c", file, "--reason", "a look")[0] == 0
    code, text, _ = platform.run("demo", "--out", out, "--rounds", 2)
    assert code == 0
    assert "replacing" in text
    assert json.loads(platform.run("status", "-c", file, "--json")[1])["last_round"] == 1
    with sqlite3.connect(out / "study.db") as connection:
        assert connection.execute("select max(round) from plans").fetchone() == (1,)
    file.write_text("study: mine\n")
    code, text, _ = platform.run("demo", "--out", out, "--rounds", 2, "--paper")
    assert (code, "demo.yaml" in text) == (0, False)
    assert file.read_text() == "study: mine\n"  # somebody else's
    other = platform.folder / "other"
    other.mkdir()
    with sqlite3.connect(other / "study.db") as connection:
        connection.execute("create table mine (x)")
    assert platform.run("demo", "--out", other)[0] == 4
    with sqlite3.connect(other / "study.db") as connection:
        assert connection.execute("select name from sqlite_master").fetchall() == [("mine",)]


def test_a_warning_is_a_line_for_people(platform):
    """What the tuner warns of is said on the error stream, without a place in the code."""
    platform.start()
    study = yaml.safe_load(platform.config.read_text())
    study["constraints"] = ["level(unfollowed) <= 1%"]
    platform.config.write_text(yaml.safe_dump(study))
    assert platform.step("--plan", platform.folder / "plan_0.json")[0] == 0
    hour = platform.readings(platform.plan(0))
    code, _, stderr = platform.step("--readings", hour, "--plan", platform.folder / "plan_1.json")
    assert code == 0
    assert "warning: round 1: in none of" in stderr
    assert "tuner.py" not in stderr
