"""The table of transfer races: drawn from what the files hold, whatever kinds those are."""

import json

import pytest

from bench.transfer import figure, table
from bench.transfer.run import RESULTS, path_of
from hyperzero_torch import InputError


def run(kind, seed, reached, rounds=6):
    """A run that is worth 95 % from the hour ``reached`` on, and nothing before."""
    score = [0.95 if h >= reached else 0.0 for h in range(rounds)]
    fixed = {"exposed_violation": [0.001] * rounds, "seconds": [0.5] * rounds}
    return {"kind": kind, "seed": seed, "rounds": rounds, "score": score, **fixed}


def written(path, runs):
    path.write_text("".join(json.dumps(r) + "\n" for r in runs))
    return path


def cells(drawn):
    head, rule, *lines = drawn.splitlines()
    assert rule.count("---") == head.count("|") - 1
    return {row[0]: row for row in ([c.strip() for c in x.strip("|").split("|")] for x in lines)}


KINDS = ("multitask/related:3", "cold", "related:10", "reversed:3", "related:3", "ax/related:3")


@pytest.fixture
def results(tmp_path):
    runs = [run(kind, 0, 2 + (kind == "cold")) for kind in KINDS]
    runs += [run(kind, 1, 4) for kind in KINDS]
    for family in ("surfaces", "regions"):
        written(path_of(4, 4.0, 0.98, tmp_path, family), runs)
    (tmp_path / "transfer_cost.json").write_text("{}")
    return tmp_path


def test_every_kind_and_every_peer_is_drawn_in_order(results):
    rows = cells(table.transfer_table(path_of(4, 4.0, 0.98, results)))
    assert list(rows) == [
        "cold", "related:3", "related:10", "reversed:3", "ax/related:3", "multitask/related:3",
    ]  # fmt: skip
    assert rows["cold"][1:4] == ["2", "3.5", "1.00"]
    assert rows["related:3"][1:4] == ["2", "3", "0.86"]
    assert rows["related:3"][-1] == "0.50"
    # In hour 2 one of two worlds is ahead by 95 points: their mean gives or takes 1.96 times 47.5.
    assert rows["related:3"][8] == "-47.5 points (at most +45.6), hour 2"
    # That hour is one of six, so one world is ahead by 95 / 6 and the other by nothing.
    assert rows["related:3"][7] == "+7.9 ± 15.5 points"


def test_a_start_that_is_behind_is_shown_at_its_worst_hour(tmp_path):
    runs = [run("cold", s, 2) for s in range(4)] + [run("noise:3", s, 4) for s in range(4)]
    rows = cells(table.transfer_table(written(tmp_path / "runs.jsonl", runs)))
    assert rows["noise:3"][8] == "+95.0 points (at most +95.0), hour 2"
    assert rows["noise:3"][3] == "2.00"


def test_only_worlds_that_the_cold_start_has_seen_are_compared(tmp_path):
    runs = [run("cold", 0, 2), run("related:3", 0, 1), run("related:3", 7, 5)]
    rows = cells(table.transfer_table(written(tmp_path / "runs.jsonl", runs)))
    assert rows["related:3"][1:4] == ["1", "1", "0.50"]


def test_without_a_cold_start_nothing_is_compared(tmp_path):
    rows = cells(table.transfer_table(written(tmp_path / "r.jsonl", [run("rgpe/related:3", 0, 4)])))
    row = rows["rgpe/related:3"]
    assert row[1:4] == ["1", "4", ""]
    assert row[8] == ""


def test_the_last_of_two_runs_counts(tmp_path):
    runs = [run("cold", 0, 2), run("cold", 0, 4)]
    assert cells(table.transfer_table(written(tmp_path / "r.jsonl", runs)))["cold"][2] == "4"


def test_all_files_are_drawn_under_their_titles(results):
    drawn = table.transfer_tables(results)
    assert drawn.count("| cold |") == 2
    assert "d = 4, traffic x 4, share 0.98:" in drawn
    assert "regions of a living recommender, traffic x 4, share 0.98:" in drawn


def test_a_file_of_something_else_has_no_title(tmp_path):
    with pytest.raises(InputError, match=r"transfer_cost\.json holds no runs"):
        table.title(tmp_path / "transfer_cost.json")


def test_the_recorded_runs_can_be_drawn():
    for path in RESULTS.glob("transfer_*.jsonl"):
        assert "cold" in cells(table.transfer_table(path)), path.name
        assert table.title(path)


def test_peers_are_compared_with_ours_in_the_same_worlds(tmp_path):
    def scored(kind, seed, score):
        return run(kind, seed, 4) | {"score": score, "rounds": len(score)}

    runs = [scored("related:3", seed, [0.5, 0.9 + 0.02 * seed]) for seed in range(3)]
    runs += [scored("rgpe/related:3", seed, [0.5, 0.7]) for seed in range(3)]
    runs += [
        scored("rgpe/related:10", seed, [0.0, 0.0]) for seed in range(3)
    ]  # no such row of ours
    runs += [scored("multitask/related:3", 0, [0.5, 0.7])]  # one world has no spread
    runs += [scored("related:3@seed_first=true", seed, [0.5, 0.7]) for seed in range(2)]
    lines = table.against_peers(written(tmp_path / "r.jsonl", runs))
    # Half of 20, 22 and 24 points; their spread is 1, so 1.96 / sqrt(3).
    assert lines.endswith(
        "all hours: related:3 less rgpe +11.0 ± 1.1 points (3 worlds); "
        "related:3@seed_first=true less rgpe +0.0 ± 0.0 points (2 worlds)."
    )
    assert table.against_peers(written(tmp_path / "c.jsonl", runs[:3])) == ""


def test_a_figure_is_drawn_the_same_bytes_for_the_same_numbers(results, tmp_path):
    drawn = []
    for name in ("a.svg", "b.svg"):
        figure.draw(table.recorded(results), tmp_path / name)
        drawn.append((tmp_path / name).read_text())
    assert drawn[0] == drawn[1]
    assert drawn[0].count("<svg") == 1
