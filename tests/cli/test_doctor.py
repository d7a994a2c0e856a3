"""``hyperzero doctor``, ``status`` and ``step`` show what is amiss, and what to do about it."""

import contextlib
import csv
import json
import warnings

import hyperzero_torch as hz
from hyperzero_torch import cli
from hyperzero_torch.study import findings

STUDY = """
study: feed
journal: sqlite:///study.db
parameters:
  - {kind: float, name: w, low: 0.0, high: 1.0}
base: {w: 0.4}
metrics: [views, watch_time]
objective: views
constraints: [watch_time >= -5%]
traffic: {num_draws: 40, num_samples: 32, num_starts: 0, num_proposals: 1, initial_candidates: 3,
          verification_share: 0}
"""


def run(*arguments):
    with contextlib.suppress(SystemExit):  # that of a command which is done
        cli.main([*arguments])


def step(tmp_path, capsys, round_, hour=None):
    """One command; returns the plan and what it said."""
    arguments = ["step", "-c", str(tmp_path / "tuning.yaml"), "--round", str(round_)]
    if hour is not None:
        path = tmp_path / f"hour_{round_}.csv"
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["round", "candidate", "metric", "count", "mean", "var"])
            rows.writerows(hour)
        arguments += ["--readings", str(path)]
    run(*arguments)
    out, err = capsys.readouterr()
    return json.loads(out), " ".join(err.split())


def test_a_misspelt_metric_is_named_by_step_status_and_doctor(tmp_path, capsys):
    (tmp_path / "tuning.yaml").write_text(STUDY)
    plan, err = step(tmp_path, capsys, 0)
    assert "Missing" not in err
    for round_ in range(1, 8):
        hour = [
            (round_ - 1, arm["candidate"], "views", round(60_000 * arm["share"]), 5 + 0.1 * i, 4.0)
            for i, arm in enumerate(plan["arms"])
        ]
        plan, err = step(tmp_path, capsys, round_, hour)
    assert "metric 'watch_time' was never reported by any arm" in err
    assert any("'watch_time' was never reported" in note for note in plan["notes"])
    config = str(tmp_path / "tuning.yaml")
    for command in ("doctor", "status"):
        run(command, "-c", config, "--json")
        shown = json.loads(capsys.readouterr().out)["findings"]
        missing = [f for f in shown if "watch_time" in f["what"]]
        assert missing
        assert "compare the metric's name" in missing[0]["advice"]
    run("doctor", "-c", config)
    text = capsys.readouterr().out
    assert "what to do" in text
    assert "findings" in text


def test_a_sound_study_has_no_findings(tmp_path, capsys):
    (tmp_path / "tuning.yaml").write_text(STUDY)
    step(tmp_path, capsys, 0)
    run("doctor", "-c", str(tmp_path / "tuning.yaml"))
    assert "nothing is amiss" in capsys.readouterr().out


def test_others_extend_the_checks(monkeypatch):
    mine = findings.Finding("rows were set aside", "round 3", "release them")
    monkeypatch.setattr(findings, "CHECKS", [*findings.CHECKS, lambda history: [mine]])
    space = hz.SearchSpace([hz.Float("w", 0.0, 1.0)])
    tuner = hz.Tuner(hz.Problem(space, {"w": 0.4}, ["views"], "views"))
    tuner.ask()
    assert findings.findings(tuner.history) == [mine]


def test_readings_that_are_not_believed_are_findings_and_no_users():
    """One count of 1e12 in one arm is set aside; the split is compared without it."""
    space = hz.SearchSpace([hz.Float("w", 0.0, 1.0)])
    config = hz.TunerConfig(num_draws=40, num_samples=32, num_starts=0, initial_candidates=3)
    tuner = hz.Tuner(hz.Problem(space, {"w": 0.4}, ["views"], "views"), config)
    plan = tuner.ask()
    count = [60_000.0 * share for share in plan.shares]
    count[1] = 1e12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hz.TunerWarning)
        tuner.tell(hz.Readings(plan.round, plan.candidate_ids, count, [5.0] * 4, [4.0] * 4))
        tuner.ask()
    (doubted,) = findings.findings(tuner.history)
    assert "hyperzero readings accept" in doubted.advice
    assert doubted.where == "rounds 0"
