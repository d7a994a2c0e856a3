"""The race of transfer at a tiny size: who is raced where, what is kept, what is not run again."""

import json
import sys

import pytest

from bench.transfer import contenders, run
from hyperzero_torch.simulate import GuardrailWorld


@pytest.fixture
def called(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(*options):
        monkeypatch.setattr(sys, "argv", ["run", *options, "--results", str(tmp_path)])
        run.main()

    return call


def test_families_are_kept_apart(tmp_path):
    assert run.path_of(4, 4.0, 0.98, tmp_path).name == "transfer_d4_x4_s0.98.jsonl"
    regions = run.path_of(4, 0.5, 0.9, tmp_path, "regions")
    assert regions.name == "transfer_regions_x0.5_s0.9.jsonl"


def test_a_label_says_who_races_with_which_sources(monkeypatch):
    world = contenders.target("surfaces", 0, 2, 0.9, 1.0)
    assert isinstance(world, GuardrailWorld)
    seen = lambda world, seed, given, **changes: ([s.name for s in given], changes)  # noqa: E731
    monkeypatch.setattr(contenders, "Ours", seen)
    assert contenders.make("cold", world, 0) == ([], {})
    assert contenders.make("related:2", world, 0) == (["related_0", "related_1"], {})
    assert contenders.make("noise@num_draws=50@caution=0", world, 0) == (
        ["noise_0"],
        {"num_draws": 50, "caution": 0},
    )
    monkeypatch.setitem(contenders.PEERS, "mine", "contenders:Ours")
    assert contenders.make("mine/reversed:1@arms=3", world, 0) == (["reversed_0"], {"arms": 3})


def test_runs_are_written_once(called, tmp_path, capsys):
    size = ("--dims", "2", "--traffic", "1", "--share", "0.9", "--rounds", "2", "--worlds", "3:4")
    called(*size, "--kinds", "cold,related:1")
    stdout = capsys.readouterr().out
    assert "2 runs, 0 there already" in stdout
    lines = run.path_of(2, 1.0, 0.9, tmp_path).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert sorted(r["kind"] for r in records) == ["cold", "related:1"]
    for record in records:
        assert (record["seed"], record["rounds"], record["family"]) == (3, 2, "surfaces")
        assert len(record["score"]) == len(record["exposed_violation"]) == 2
    called(*size, "--kinds", "cold,related:1")
    assert "0 runs, 2 there already" in capsys.readouterr().out
    assert run.path_of(2, 1.0, 0.9, tmp_path).read_text().splitlines() == lines


def test_regions_have_the_recommenders_dimensions(called, capsys):
    with pytest.raises(SystemExit):
        called("--family", "regions", "--dims", "2")
    assert "regions have 4 dimensions, got --dims 2" in capsys.readouterr().err
