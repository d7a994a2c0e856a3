"""The horizon of a study file: shown by the status, changed while a study runs, refused in time."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from support.cron_platform import METRICS, Platform
from support.looks import looks

import hyperzero_torch as hz
from hyperzero_torch.cli import watch as watching
from hyperzero_torch.study.journal import Configured

PASSED = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def platform(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hyperzero_torch.cli.output.console.width", 400)
    return Platform(tmp_path, capsys)


def change(platform, **traffic):
    """Edit the study file, as a person does: a date is one of YAML's."""
    study = yaml.safe_load(platform.config.read_text())
    study["traffic"] |= traffic
    platform.config.write_text(yaml.safe_dump(study))


def play(platform, first, last, late=0):
    """Hours of a platform whose readings come ``late`` rounds after those of others do."""
    for number in range(first, last):
        plan = platform.folder / f"plan_{number}.json"
        of = number - 1 - late
        readings = () if of < 0 else ("--readings", platform.readings(platform.plan(of)))
        code, _, err = platform.step(*readings, "--plan", plan)
        assert code == 0, err


def facts_of(platform):
    code, out, err = platform.run("status", "-c", platform.config, "--json")
    assert code == 0, err
    return json.loads(out)


def lines_of(platform):
    code, out, err = platform.run("status", "-c", platform.config)
    assert code == 0, err
    return out.splitlines()


def card_of(facts):
    (card,) = (card for card in facts["health"] if card["name"] == "Horizon")
    return card


def let_it_pass(platform, horizon=PASSED):
    """Put a date in force that has passed, as it does while a study runs."""
    change(platform, horizon=horizon)
    tuner = hz.Tuner.resume(f"sqlite:///{platform.folder / 'study.db'}", "feed")
    config = tuner.config.model_copy(update={"horizon": horizon})
    tuner.study.append(lambda _: ([Configured(config.model_dump(mode="json"))], None))


def test_rounds_in_the_status(platform):
    platform.start(horizon=48)
    play(platform, 0, 4)
    facts = facts_of(platform)
    horizon = facts["horizon"]
    assert (horizon["round"], horizon["date"], horizon["rounds_left"]) == (48, None, 44)
    assert horizon["why_not"] is None
    assert horizon["control_share"] == facts["rounds"][-1]["control_share"]
    leading, even = horizon["shares"]
    assert (leading["name"], even["name"]) == ("leading", "even")
    assert [m["metric"] for m in leading["metrics"]] == list(METRICS)
    lines = lines_of(platform)
    at = lines.index("horizon: round 48, 44 rounds left")
    lift = f"views {100 * leading['metrics'][0]['smallest_lift']:.2g} %"
    assert f"at the leaders' share ({100 * leading['share']:.1f} %)" in lines[at + 1]
    assert lift in lines[at + 1]
    assert "at an even share" in lines[at + 2]
    card = card_of(facts)
    assert card["state"] == "PASS"
    assert card["sentence"].startswith("round 48, 44 rounds left; at the leaders' share")
    assert lift in card["sentence"]


def test_it_is_72_rounds_where_the_file_names_none(platform):
    platform.start()
    play(platform, 0, 1)
    assert "horizon: round 72, 71 rounds left; there are no readings yet" in lines_of(platform)
    assert facts_of(platform)["horizon"]["why_not"] == "there are no readings yet"


def test_a_date_and_its_change_while_the_study_runs(platform):
    day = datetime.now(UTC).date() + timedelta(days=3)
    platform.start(horizon=day)
    play(platform, 0, 3)
    horizon = facts_of(platform)["horizon"]
    assert horizon["date"] == str(day)
    assert 47 <= horizon["rounds_left"] <= 72
    assert any(line.startswith(f"horizon: {day}, ") for line in lines_of(platform))
    change(platform, horizon=30)
    assert facts_of(platform)["horizon"]["date"] == str(day)  # until the next step
    play(platform, 3, 4)
    assert (facts_of(platform)["horizon"]["date"], facts_of(platform)["horizon"]["round"]) == (
        None,
        30,
    )


def test_it_fits_no_model_more_than_the_verdict_does(platform, monkeypatch):
    from hyperzero_torch.tuner import model

    fits = []
    fit = model._fit
    monkeypatch.setattr(model, "_fit", lambda *of: fits.append(1) or fit(*of))
    platform.start()
    play(platform, 0, 3)
    fits.clear()
    facts_of(platform)
    assert len(fits) == 1
    tuner = hz.Tuner.resume(f"sqlite:///{platform.folder / 'study.db'}", "feed")
    assert tuner.resolution().shares
    assert len(fits) == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2020-01-01", "the horizon 2020-01-01 has passed: name a later date"),
        ("2020-01-01T12:00+02:00", "the horizon 2020-01-01 10:00 UTC has passed"),
        (0, "horizon is a number of rounds from 1 to 1,000,000, or a date such as"),
        (-5, "got -5"),
        (2.5, "got 2.5"),
        ("soon", "got 'soon'"),
        (True, "got True"),
        ([72], r"got \[72\]"),
        ({"rounds": 72}, "horizon is a number of rounds"),
        ("2026-02-30", "got '2026-02-30'"),
    ],
)
def test_what_is_no_horizon_is_refused_with_one_error_and_nothing_is_written(
    platform, value, words
):
    platform.start(horizon=value)
    for more in ((), ("--dry-run",)):
        code, out, err = platform.step("--plan", platform.folder / "plan.json", *more)
        assert (code, out) == (3, "")
        (_line,) = (line for line in err.splitlines() if re.search(words, line))
        assert err.count("horizon") <= 3
        assert "Traceback" not in err
    assert [path.name for path in platform.folder.iterdir()] == ["tuning.yaml"]


def test_a_new_one_that_has_passed_is_refused_while_the_study_runs(platform):
    platform.start()
    play(platform, 0, 2)
    change(platform, horizon=PASSED)
    before = platform.journal()
    readings = platform.readings(platform.plan(1))
    for more in ((), ("--dry-run",)):
        code, _, err = platform.step("--readings", readings, "--plan", "no.json", *more)
        assert code == 3
        assert err == (
            "error: the horizon 2026-01-02 has passed: name a later date, or a number of rounds "
            "(traffic.horizon)\n"
        )
    assert platform.journal() == before


def test_one_that_is_not_longer_than_the_delay_is_refused(platform):
    platform.start()
    play(platform, 0, 12, late=4)
    before = platform.journal()
    readings = platform.readings(platform.plan(7))
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3, minutes=30)
    for horizon, what in (
        (3, "a horizon of 3 rounds is"),
        (1, "a horizon of 1 round is"),
        (soon, f"the horizon {soon:%Y-%m-%d %H:%M} UTC, 3 rounds from now, is"),
    ):
        change(platform, horizon=horizon)
        code, _, err = platform.step("--readings", readings, "--plan", "no.json")
        assert code == 3
        assert f"error: {what} not longer than the delay of this study's readings (4.0" in err
        assert "no reading would arrive before it (traffic.horizon)" in err
    assert platform.journal() == before
    change(platform, horizon=40)
    play(platform, 12, 13, late=4)
    assert facts_of(platform)["horizon"]["round"] == 40


def test_a_date_that_passes_is_said_loudly_and_the_study_runs_on(platform):
    platform.start()
    play(platform, 0, 3)
    action = facts_of(platform)["verdict"]["action"]
    let_it_pass(platform)
    facts = facts_of(platform)
    verdict, card = facts["verdict"], card_of(facts)
    assert verdict["action"] == action == "keep running"
    assert verdict["state"] == "ACT"
    assert verdict["sentence"] == ("The horizon passed on 2026-01-02: decide, or name a later one")
    assert verdict["why"].startswith("Keep")
    assert card == {
        "name": "Horizon", "state": "ACT", "sentence": "it passed on 2026-01-02",
        "advice": "decide, or name a later one (traffic.horizon)",
    }  # fmt: skip
    assert facts["horizon"]["rounds_left"] == 0
    assert facts["horizon"]["shares"] == []
    lines = lines_of(platform)
    assert lines[1] == verdict["sentence"]
    advice = "decide, or name a later one (traffic.horizon)"
    assert f"ACT Horizon: it passed on 2026-01-02: {advice}" in lines
    assert not [line for line in lines if line.startswith("horizon:")]
    play(platform, 3, 5)  # plans go on, and other keys can be changed
    change(platform, num_proposals=2)
    play(platform, 5, 6)
    change(platform, horizon=datetime.now(UTC).date() + timedelta(days=9))
    play(platform, 6, 7)
    assert card_of(facts_of(platform))["state"] == "PASS"


def test_watch_shows_when_it_passes(platform, monkeypatch):
    platform.start()
    play(platform, 0, 2)
    looks(
        monkeypatch, lambda: None, lambda: monkeypatch.setattr(watching, "has_passed", lambda _: 1)
    )
    _, out, _ = platform.run("watch", "-c", platform.config)
    assert out.count("study feed: last round 1") == 2


def test_the_template_gives_advice(platform):
    assert platform.run("init", platform.config)[0] == 0
    text = platform.config.read_text()
    assert re.search(r"^  horizon: 72 +# .*or a date such as", text, re.M)
    assert hz.StudyConfig.from_file(platform.config).tuner.horizon == 72
