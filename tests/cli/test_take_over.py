"""A journal that was lost, begun anew or restored does not replace what is served by itself."""

import json
import shutil

import pytest
import yaml
from support.cron_platform import Platform

from hyperzero_torch.live import FlagdUpdater, Terms
from hyperzero_torch.testing.platforms import example_plan


@pytest.fixture
def platform(tmp_path, capsys):
    platform = Platform(tmp_path, capsys)
    platform.start()
    study = yaml.safe_load(platform.config.read_text())
    study["live"] = {"exposures": "x/*.parquet", "events": "e/*.parquet", "flags": "flags.json"}
    platform.config.write_text(yaml.safe_dump(study))
    return platform


def owner(platform):
    return FlagdUpdater(platform.folder / "flags.json").owner()


def serve(platform):
    """What the loop writes at the start of a round; here a switch writes it."""
    code, _, err = platform.run("withdraw", "-c", platform.config, "--reason", "r")
    assert code == 0, err
    code, _, err = platform.run("resume", "-c", platform.config, "--reason", "r")
    assert code == 0, err


def test_a_lost_journal_is_refused_until_a_person_says_so(platform):
    pytest.importorskip("duckdb")
    assert platform.step("--round", "4")[0] == 0
    serve(platform)
    stamp = owner(platform)
    assert (stamp["study"], stamp["round"]) == ("feed", 4)
    flags = (platform.folder / "flags.json").read_bytes()
    kept = platform.folder / "kept.db"
    (platform.folder / "study.db").rename(kept)
    for command in (("step",), ("step", "--dry-run"), ("run",), ("run", "--dry-run")):
        code, _, err = platform.run(command[0], "-c", platform.config, *command[1:])
        assert code == 7, err
        assert "round 4 of study 'feed'" in err
        assert "hyperzero take-over" in err
        assert not (platform.folder / "study.db").exists()
    code, _, err = platform.run(
        "take-over", "-c", platform.config, "--reason", "the disk", "--dry-run"
    )
    assert code == 0
    assert "nothing was written" in err
    assert (platform.folder / "flags.json").read_bytes() == flags
    code, _, err = platform.run(
        "take-over", "-c", platform.config, "--reason", "the disk is lost", "--by", "anna"
    )
    assert code == 0, err
    after = owner(platform)
    assert after["epoch"] != stamp["epoch"]
    flag = json.loads((platform.folder / "flags.json").read_text())["flags"]["value-model"]
    assert list(flag["variants"]) == ["control"]
    assert "targeting" not in flag
    assert platform.step()[0] == 0
    serve(platform)
    assert owner(platform)["epoch"] == after["epoch"]
    decisions = platform.journal()["decisions"]
    assert any("taken over by anna" in str(row) for row in decisions)
    # The old journal comes back: its plans are of the past.
    shutil.copy(kept, platform.folder / "study.db")
    flags = (platform.folder / "flags.json").read_bytes()
    code, _, err = platform.run("resume", "-c", platform.config, "--reason", "r")
    assert code == 3
    code, _, err = platform.run("pause", "-c", platform.config, "--reason", "r")
    assert code == 3
    assert "begun anew" in err
    assert (platform.folder / "flags.json").read_bytes() == flags


def test_a_journal_restored_from_a_backup_does_not_bring_back_its_plan(platform):
    assert platform.step("--round", "4")[0] == 0
    serve(platform)
    backup = shutil.copy(platform.folder / "study.db", platform.folder / "backup.db")
    assert platform.step("--round", "5")[0] == 0
    serve(platform)
    flags = (platform.folder / "flags.json").read_bytes()
    shutil.copy(backup, platform.folder / "study.db")
    code, _, err = platform.run("pause", "-c", platform.config, "--reason", "r")
    assert code == 3
    assert "is older" in err
    assert (platform.folder / "flags.json").read_bytes() == flags
    code, _, err = platform.run("take-over", "-c", platform.config, "--reason", "restored")
    assert code == 0, err
    code, _, err = platform.run("resume", "-c", platform.config, "--reason", "r")
    assert code == 0, err
    assert owner(platform)["round"] == 4


def test_two_studies_on_one_flag_are_refused(platform):
    path = platform.folder / "flags.json"
    FlagdUpdater(path).on_behalf_of(Terms("shorts", "e1")).apply(example_plan(1, (0.5, 0.5)))
    before = path.read_bytes()
    code, _, err = platform.step()
    assert code == 7
    assert "study 'shorts'" in err
    assert (path.read_bytes(), (platform.folder / "study.db").exists()) == (before, False)


def test_take_over_needs_flags_and_a_reason(platform):
    code, _, err = platform.run("take-over", "-c", platform.config, "--reason", " ")
    assert code == 3
    assert "reason" in err
    study = yaml.safe_load(platform.config.read_text())
    del study["live"]
    platform.config.write_text(yaml.safe_dump(study))
    code, _, err = platform.run("take-over", "-c", platform.config, "--reason", "r")
    assert code == 3
    assert "no 'live' section" in err
    assert not (platform.folder / "study.db").exists()
