"""Goals on the command line: an edited study file is refused by name, then put in force."""

import getpass
import json

import pytest
import yaml
from support.cron_platform import Platform


@pytest.fixture
def platform(tmp_path, capsys):
    platform = Platform(tmp_path, capsys)
    platform.start()
    for hour in range(3):
        more = () if not hour else ("--readings", platform.readings(platform.plan(hour - 1)))
        code, _, err = platform.step(*more, "--plan", platform.folder / f"plan_{hour}.json")
        assert code == 0, err
    return platform


def edit(platform, **changes):
    study = yaml.safe_load(platform.config.read_text())
    platform.config.write_text(yaml.safe_dump(study | changes))


def goals(platform, command, *arguments):
    return platform.run("goals", command, "-c", platform.config, *arguments)


def test_an_edited_file_is_refused_until_its_goals_are_put_in_force(platform):
    before = platform.journal()
    edit(platform, objective="watch_time", constraints=["views >= -1%"])
    for command in (("step",), ("status",), ("recommend",)):
        code, _, err = platform.run(*command, "-c", platform.config)
        assert code == 6
        text = " ".join(err.split())
        assert "objective:" in text
        assert "'watch_time' from here on" in text
        assert "hyperzero goals change" in text
        assert "try again" not in text
    assert platform.journal() == before

    code, out, err = goals(platform, "show")
    assert code == 0
    assert "from round 0 on: maximise" in out
    assert "has other goals, which are not in force" in err

    code, out, err = goals(platform, "change", "--reason", "a trial", "--dry-run")
    assert (code, platform.journal()) == (0, before)
    assert "dry run: nothing was written" in err
    assert "recommended before: candidate" in out

    code, out, err = goals(platform, "change", "--reason", "watch time counts", "--by", "ann")
    assert code == 0, err
    assert "the guardrail 'views >= -1%' is added" in out
    decision = platform.journal()["decisions"][-1]
    assert "goals changed" in decision
    assert "watch time counts" in decision
    code, out, err = goals(platform, "show", "--json")
    assert code == 0
    held = json.loads(out)
    assert held["file"] == []
    assert [g["rounds"] for g in held["goals"]] == [
        "rounds 0 to 2",
        "from round 3 on, none of which is planned yet",
    ]
    assert held["goals"][1]["by"] == "ann"
    assert held["goals"][1]["problem"]["objective"] == "watch_time"
    code, _, err = platform.step("--plan", platform.folder / "plan_3.json")
    assert code == 0, err
    code, out, _ = platform.run("explain", "-c", platform.config, "--round", 3)
    assert "goals were changed by ann" in " ".join(out.split())
    code, out, _ = platform.run("status", "-c", platform.config)
    assert "goals were changed 1 times, last by ann" in " ".join(out.split())


def test_nothing_to_change_is_said(platform):
    before = platform.journal()
    code, _, err = goals(platform, "change", "--reason", "again")
    assert code == 0
    assert "nothing was changed" in err
    assert platform.journal() == before
    assert "warning" not in goals(platform, "show")[2]


def test_what_no_running_study_can_take(platform):
    before = platform.journal()
    study = yaml.safe_load(platform.config.read_text())
    edit(platform, metrics=[*study["metrics"], "revenue"], objective="revenue")
    code, _, err = goals(platform, "change", "--reason", "money")
    assert code == 6
    assert "['revenue'] were never collected in this study" in " ".join(err.split())
    code, _, err = goals(platform, "show")
    assert code == 0
    assert "start another study" in err
    platform.config.write_text(yaml.safe_dump(study))
    edit(platform, base=dict.fromkeys(study["base"], 1000000000.0))
    assert goals(platform, "change", "--reason", "far")[0] == 3
    platform.config.write_text(yaml.safe_dump(study))
    edit(platform, objective="watch_time")
    code, _, err = goals(platform, "change", "--reason", " ")
    assert (code, "give a reason" in err) == (3, True)
    assert goals(platform, "change")[0] == 2
    assert platform.journal() == before


def test_who_is_the_user_of_the_command_and_options_have_both_names(platform):
    edit(platform, objective="watch_time")
    file = ("--study-file", platform.config)
    code, out, err = platform.run("goals", "change", *file, "--reason", "so", "--json")
    assert code == 0, err
    effect = json.loads(out)
    assert effect["changed"]
    assert effect["written"]
    code, out, _ = platform.run("goals", "show", *file)
    assert f"changed by {getpass.getuser()}: so" in out


def test_a_study_that_has_not_begun(tmp_path, capsys):
    platform = Platform(tmp_path, capsys)
    platform.start()
    for command in (("show",), ("change", "--reason", "so")):
        code, _, err = goals(platform, *command)
        assert code == 3
        assert "hyperzero step" in err
    assert not (tmp_path / "study.db").exists()
