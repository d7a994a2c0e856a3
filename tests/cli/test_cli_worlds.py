"""The worlds that ``hyperzero simulate`` offers."""

import json
from functools import partial

import pytest

from hyperzero_torch.cli import main, worlds
from hyperzero_torch.cli.worlds import World, make_world
from hyperzero_torch.simulate import ValueModelWorld


@pytest.mark.parametrize(("traffic", "users"), [(1.0, 20_000), (0.25, 5_000), (1e-9, 2)])
def test_the_value_model_has_users_by_its_traffic(traffic, users):
    world = make_world(World("value-model"), 5, traffic, None, None, None)
    assert isinstance(world, ValueModelWorld)
    assert (world.seed, len(world.user_ids), world.delay) == (5, users, 0)
    assert make_world(World.VALUE_MODEL, 5, traffic, 4, None, None).delay == 4


def test_the_value_model_can_be_simulated(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(worlds, "ValueModelWorld", partial(ValueModelWorld, panel=200))
    config = tmp_path / "small.yaml"
    config.write_text("num_draws: 40\nnum_samples: 64\ninitial_candidates: 8\n")
    how = ["--rounds", "4", "--traffic", "0.05", "--config", str(config), "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--world", "value-model", *how])
    assert ended.value.code == 0
    rounds = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["round"] for r in rounds] == [0, 1, 2, 3]
    assert set(rounds[0]["recommendation"]["parameters"]) == {
        *("w_click", "w_share", "w_follow", "w_watch")
    }
    assert rounds[0]["oracle_gain"] > 0
    assert rounds[-1]["num_in_flight"] < sum(r["num_arms"] + 1 for r in rounds)  # some are back


def test_the_help_names_every_world(capsys):
    with pytest.raises(SystemExit):
        main(["simulate", "--help"])
    help_text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for world in World:
        assert f"{world}:" in help_text


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--traffic", "inf"], "--traffic must be a number above 0"),
        (["--traffic", "nan"], "--traffic must be a number above 0"),
        (["--traffic", "1e6"], "num_users must be a whole number"),
        (["--dims", "3"], "--dims is for --world guardrail"),
        (["--experiment", "x"], "--experiment is for --world replay"),
    ],
)
def test_what_the_value_model_cannot_be_is_refused(wrong, says, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--world", "value-model", *wrong])
    assert ended.value.code == 3
    assert says in capsys.readouterr().err
