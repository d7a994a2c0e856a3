"""`hyperzero step` for a cron job that misses hours, exports twice, or gets a round wrong."""

import json

import pytest
import yaml
from support.cron_platform import METRICS, Platform

import hyperzero_torch as hz


@pytest.fixture
def platform(tmp_path, capsys):
    made = Platform(tmp_path, capsys)
    made.start()
    for hour in range(2):
        made.step("--round", hour, "--plan", tmp_path / f"plan_{hour}.json")
    return made


def rounds_recorded(platform):
    tuner = hz.Tuner.resume(
        f"sqlite:///{platform.folder / 'study.db'}",
        platform_study(platform),
        problem=problem_of(platform),
    )
    tables = tuner.history.tables
    recorded = {r: int((t.revision >= 0).sum()) for r, t in tables.items()}
    tuner.journal.close()
    return recorded


def platform_study(platform):
    return yaml.safe_load(platform.config.read_text()).get("study", "default")


def problem_of(platform):
    from hyperzero_torch.study.config import StudyConfig

    return StudyConfig.from_file(platform.config).problem()


def status(platform):
    return json.loads(platform.run("status", "-c", platform.config, "--json")[1])


def test_a_missed_hour_holds_up_nothing(platform):
    """docs/how-to/cron.md: the job of round 2 did not run; the export has rows of it."""
    exported = platform.folder / "readings.csv"
    parts = [platform.plan(0), platform.plan(1), platform.plan(1) | {"round": 2}]
    files = [platform.readings(plan, f"{i}.csv").read_text() for i, plan in enumerate(parts)]
    header, rows = files[0].split("\n", 1)
    exported.write_text(header + "\n" + rows + "".join(f.split("\n", 1)[1] for f in files[1:]))
    out = platform.folder / "plan_3.json"
    arguments = ("--round", 3, "--readings", exported, "--plan", out)
    num_left_out = len(METRICS) * len(platform.plan(1)["arms"])

    code, _, err = platform.step(*arguments, "--dry-run")
    assert code == 0, err
    assert f"{num_left_out} rows were left out" in " ".join(err.split())
    code, _, err = platform.step(*arguments)
    assert code == 0, err
    said = " ".join(err.split())
    assert f"{num_left_out} rows were left out: unknown round 2: it was never planned" in said
    assert json.loads(out.read_text())["round"] == 3
    recorded = rounds_recorded(platform)
    assert all(recorded[r] == len(METRICS) * len(platform.plan(r)["arms"]) for r in (0, 1))
    assert 2 not in recorded
    # The next hour's export still has the round: nothing new is written about it, nothing stops.
    code, _, err = platform.step("--round", 4, "--readings", exported, "--plan", out)
    assert code == 0, err
    remarks = [r for r in status(platform)["remarks"] if r["kind"] == "refused"]
    assert len(remarks) == 1
    assert "unknown round 2" in remarks[0]["reason"]
    assert "unknown round 2" in " ".join(platform.run("status", "-c", platform.config)[1].split())


def test_an_export_of_unplanned_hours_alone_still_gets_a_plan(platform):
    late = platform.readings(platform.plan(1) | {"round": 7}, "late.csv")
    code, _, err = platform.step("--round", 8, "--readings", late, "--plan", platform.folder / "p")
    assert code == 0, err
    assert "recorded 0 new rows" in err
    assert json.loads((platform.folder / "p").read_text())["round"] == 8


def test_the_same_query_with_other_last_digits_is_the_same(platform):
    platform.readings(platform.plan(0), "a.csv")

    def disturb(rows):
        for row in rows:
            row["mean"] *= 1 + 3e-14
            row["var"] *= 1 - 3e-14

    def contradict(rows):
        rows[0]["mean"] *= 1 + 1e-7

    first = platform.readings(platform.plan(0), "a.csv")
    again = platform.readings(platform.plan(0), "b.csv", disturb)
    other = platform.readings(platform.plan(0), "c.csv", contradict)
    out = platform.folder / "p.json"
    assert platform.step("--round", 2, "--readings", first, "--plan", out)[0] == 0
    code, _, err = platform.step("--round", 2, "--readings", again, "--plan", out)
    assert code == 0, err
    assert "recorded 0 new rows" in err
    code, _, err = platform.step("--round", 2, "--readings", other, "--plan", out)
    assert code == 3
    said = " ".join(err.split())
    received, sent = said.split("was received with")[1].split("and now has")
    mean, _ = METRICS["views"]
    assert f"mean {float(mean)!r}" in received
    assert f"mean {mean * (1 + 1e-7)!r}" in sent


def test_one_user_without_a_variance_is_accepted(platform):
    def one_user(rows):
        for row in rows[-len(METRICS) :]:
            row["count"], row["var"] = 1, ""

    readings = platform.readings(platform.plan(0), "a.csv", one_user)
    code, _, err = platform.step("--readings", readings, "--plan", platform.folder / "p.json")
    assert code == 0, err
    assert "rows of" in err


@pytest.mark.parametrize("round_", [171, 1700, 1_764_000_000])
def test_a_round_that_is_a_typo_is_refused_without_a_flag(platform, round_):
    out = platform.folder / "p.json"
    before = platform.journal()
    code, _, err = platform.step("--round", round_, "--plan", out)
    assert code == 3
    said = " ".join(err.split())
    assert f"--round {round_} is {round_ - 1} rounds beyond the last planned round 1" in said
    assert "--allow-gap" in said
    assert platform.journal() == before
    assert not out.exists()
    assert platform.step("--round", round_, "--allow-gap", "--plan", out)[0] == 0
    assert json.loads(out.read_text())["round"] == round_
    # The message to a job that counts as before says how to go on.
    code, _, err = platform.step("--round", 2, "--plan", out)
    assert code == 3
    said = " ".join(err.split())
    assert f"the next is {round_ + 1}" in said
    assert f"has to add {round_ - 1}" in said
    assert platform.step("--round", round_ + 1, "--plan", out)[0] == 0


def test_a_gap_of_a_week_is_no_typo(platform):
    assert platform.step("--round", 170, "--plan", platform.folder / "p.json")[0] == 3
    assert platform.step("--round", 169, "--plan", platform.folder / "p.json")[0] == 0


def test_arms_whose_control_is_missing_and_hours_without_rows_are_said(platform):
    def without_control(rows):
        rows[:] = [r for r in rows if r["candidate"] != 0]

    for hour in (2, 3, 4):
        platform.step("--round", hour, "--plan", platform.folder / f"plan_{hour}.json")
    no_control = platform.readings(platform.plan(1), "1.csv", without_control)
    out = platform.folder / "p.json"
    code, _, err = platform.step("--round", 5, "--readings", no_control, "--plan", out)
    assert code == 0, err
    assert "the control has none of" not in " ".join(err.split())  # it may be on its way
    for hour in (6, 7, 8, 9):
        code, _, err = platform.step("--round", hour, "--plan", out)
    said = " ".join(err.split())
    assert "arms have readings of round 1 and the control has none of" in said
    # Rounds 2 and 3 come, round 0 never did.
    for hour in (2, 3):
        readings = platform.readings(platform.plan(hour))
        code, _, err = platform.step("--round", 8 + hour, "--readings", readings, "--plan", out)
        assert code == 0
    assert "round 0 has no readings at all, though later rounds have" in " ".join(err.split())
    facts = status(platform)
    assert facts["without_rows"] == [0]
    assert facts["without_control"] == {"1": sorted(METRICS, key=list(METRICS).index)}
    shown = " ".join(platform.run("status", "-c", platform.config)[1].split())
    assert "1 without rows: round 0" in shown
    assert "the control has none of" in shown
    kinds = [r["kind"] for r in facts["remarks"]]
    assert kinds.count("control") == kinds.count("hours") == 1
    # The control's rows arrive: nothing is missing any more.
    whole = platform.readings(platform.plan(1), "whole.csv")
    assert platform.step("--round", 12, "--readings", whole, "--plan", out)[0] == 0
    assert status(platform)["without_control"] == {}
