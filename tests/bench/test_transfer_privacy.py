"""The price of privacy at a tiny size: real noise, a real accountant, a table from the file."""

import json
import math
import statistics

import pytest

pytest.importorskip("dp_accounting")
privacy = pytest.importorskip("bench.transfer.privacy")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("privacy") / "rows.json"
    size = ["--seeds", "1", "--arms", "8", "--traffic", "10", "100"]
    privacy.main([*size, "--results", str(path)])
    return path


def test_every_budget_is_spent_and_none_exceeded(results):
    rows = json.loads(results.read_text())
    assert len(rows) == 2 * len(privacy.EPSILONS)
    for traffic in (10.0, 100.0):
        part = [r for r in rows if r["traffic"] == traffic]
        for row, epsilon in zip(part, privacy.EPSILONS):
            if epsilon == math.inf:
                assert (row["epsilon"], row["noise_multiplier"]) == (None, 0.0)
            else:
                assert 0.999 * epsilon < row["epsilon"] <= epsilon
        noise = [r["noise_multiplier"] for r in part]
        assert noise == sorted(noise, reverse=True)
        assert all(r["kept"] <= 1 + 1e-9 for r in part)


def test_the_design_does_not_depend_on_what_users_did(results):
    world = privacy.GuardrailWorld(0, 2)
    history = privacy.study(world, 4)
    assert [b.origin for b in history.candidates] == ["design"] * 5
    assert len({p.candidates for p in history.plans.values()}) == 1
    assert len(history.tables) == privacy.HOURS


def test_the_table_and_the_curve_say_what_the_file_says(results):
    rows = json.loads(results.read_text())
    curve = privacy.curve(results)
    assert list(curve) == [10.0, 100.0]
    head, rule, *lines = privacy.table(results).splitlines()
    assert rule.count("---") == head.count("|") - 1 == 4
    lines = lines[: len(privacy.EPSILONS)]
    for i, line in enumerate(lines):
        cells = [c.strip() for c in line.strip("|").split("|")]
        matching = [r for r in rows if f"{r['noise_multiplier']:.2f}" == cells[1]]
        assert [f"{100 * r['kept']:.1f}" for r in matching] == [c.split(" ")[0] for c in cells[2:]]
        assert curve[10.0][i][2] == matching[0]["kept"]
    assert lines[-1].startswith("| none")


def test_the_recorded_rows_are_whole():
    rows = json.loads(privacy.RESULTS.read_text())
    curve = privacy.curve()
    seeds = {r["seed"] for r in rows}
    assert len(seeds) >= 20
    assert len(rows) == len(seeds) * len(curve) * len(privacy.EPSILONS)
    for traffic, points in curve.items():
        plain = [r["kept"] for r in rows if r["traffic"] == traffic and r["epsilon"] is None]
        assert points[-1][2] == statistics.mean(plain)
        assert points[0][2] < points[-1][2]  # the smallest epsilon costs something


@pytest.mark.parametrize("wrong", [["--seeds", "0"], ["--arms", "-1"], ["--traffic", "0"]])
def test_sizes_that_measure_nothing_are_refused(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        privacy.main([*wrong, "--results", str(tmp_path / "p.json")])
    assert ended.value.code == 2
    assert "must be above 0" in capsys.readouterr().err
    assert not (tmp_path / "p.json").exists()
