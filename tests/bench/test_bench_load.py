"""The large hour at a tiny size: real files, a real journal, and a table from what was written."""

import json

import pytest

import hyperzero_torch as hz

pytest.importorskip("duckdb")
pq = pytest.importorskip("pyarrow.parquet")
load = pytest.importorskip("bench.reliability.load")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("load") / "load.json"
    size = ["--users", "2000", "--arms", "8", "--metrics", "3", "--rounds", "3"]
    load.main([*size, "--results", str(path)])
    return path


def test_every_round_is_measured_and_every_reading_recorded(results):
    report = json.loads(results.read_text())
    assert (report["users"], report["metrics"]) == (2000, 3)
    assert [r["round"] for r in report["rounds"]] == [0, 1, 2]
    assert all(
        r[part] > 0 for r in report["rounds"] for part in ("aggregate", "tell", "ask", "gib")
    )
    assert report["rounds"][0]["rows"] == 0  # nobody was served before
    assert [r["gib"] for r in report["rounds"]] == sorted(r["gib"] for r in report["rounds"])
    first, second, third = report["rounds"]
    assert first["arms"] == 8
    # An arm of each round and the control, three metrics each; the round before once more, as a
    # revision, while it is not too old.
    assert second["rows"] == 3 * (first["arms"] + 1)
    assert third["rows"] == 3 * (first["arms"] + 1 + second["arms"] + 1)


def test_the_table_says_what_the_file_says(results):
    report = json.loads(results.read_text())
    head, rule, *rows = load.table(results).splitlines()
    assert "2,000 users, 3 metrics" in head
    assert rule.count("---") == head.count("|") - 1 == 7
    assert len(rows) == 3
    for row, record in zip(rows, report["rounds"]):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:3] == [str(record[k]) for k in ("round", "arms", "rows")]
        assert cells[3:] == [
            *(f"{record[k]:.1f} s" for k in ("aggregate", "tell", "ask")),
            f"{record['gib']:.1f} GiB",
        ]


def test_the_log_is_what_the_plan_says(tmp_path):
    space = hz.SearchSpace([hz.Float("theta_0", 0.0, 1.0)])
    problem = hz.Problem(space, {"theta_0": 0.5}, ["m00", "m01"], "m00")
    plan = hz.Tuner(problem, hz.TunerConfig(initial_candidates=4, num_draws=40)).ask()
    users = 20_000
    load.write_log(tmp_path, plan, users, ["m00", "m01"])
    exposures = pq.read_table(tmp_path / "exposures-0.parquet").to_pydict()
    assert exposures["user"] == list(range(users))
    assert set(exposures["round"]) == {0}
    chi = sum(
        (exposures["candidate"].count(c) - users * s) ** 2 / (users * s)
        for c, s in zip(plan.candidate_ids, plan.shares)
    )
    free = len(plan) - 1
    assert chi < free + 5 * (2 * free) ** 0.5
    lift = dict(zip(plan.candidate_ids, (1 + 0.1 * plan.theta[:, 0]).tolist()))
    for metric in ("m00", "m01"):
        events = pq.read_table(tmp_path / f"events-0-{metric}.parquet").to_pydict()
        assert set(events["metric"]) == {metric}
        # An exponential's standard deviation is its mean.
        ratios = [v / lift[c] for v, c in zip(events["value"], exposures["candidate"])]
        assert abs(sum(ratios) / users - 1) < 5 / users**0.5


@pytest.mark.parametrize("wrong", [["--users", "0"], ["--metrics", "1"], ["--rounds", "-1"]])
def test_sizes_that_measure_nothing_are_refused(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        load.main([*wrong, "--results", str(tmp_path / "load.json")])
    assert ended.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "load.json").exists()
