"""The bench of a year, in small: what it measures, and its table."""

import json

import pytest

from bench.reliability import year


@pytest.mark.parametrize("every", [False, True])
def test_weeks_are_measured_and_shown(tmp_path, monkeypatch, every):
    monkeypatch.setattr(year, "WEEK", 24)
    monkeypatch.setattr(year, "PLANNED", 4)
    monkeypatch.setattr(year, "WARM_UP", 1)
    monkeypatch.setattr(year, "SERVED_FOR", 2)
    changes = {
        "block_rounds": 24, "num_draws": 40, "num_samples": 32, "num_starts": 0,
        "initial_candidates": 6, "max_arms": 6, "num_proposals": 1, "max_candidates": 24,
        "drift_alpha": None, "verification_share": 0,
    }  # fmt: skip
    results = tmp_path / "year.json"
    arguments = ["--rounds", "78", "--keep", "24", "--results", str(results)]
    arguments += ["--every-round"] if every else []
    year.main([*arguments, "--changes", json.dumps(changes)])
    measured = json.loads(results.read_text())
    weeks = measured["weeks"]
    assert [w["round"] for w in weeks] == [47, 71, 77]
    assert measured["same"] is True
    assert all(0 < w["median"] <= w["slowest"] for w in weeks)
    assert all(w["fitted"] <= 30 for w in weeks)
    assert weeks[-1]["born"] > weeks[0]["born"]
    shown = year.table(results)
    assert "| 48 |" in shown
    assert "recommends the same" in shown
