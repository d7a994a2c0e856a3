"""Mistakes in a study file, and variables of the environment in its addresses."""

import contextlib
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.cron_platform import Platform

import hyperzero_torch as hz
from hyperzero_torch import StudyConfig
from hyperzero_torch.study.config.variables import Variables

STUDY = {
    "study": "feed",
    "journal": "sqlite:///study.db",
    "parameters": [{"kind": "float", "name": "w", "low": 0.0, "high": 1.0}],
    "base": {"w": 0.2},
    "metrics": ["views"],
    "objective": "views",
}
LIVE = {"exposures": "log/*.parquet", "events": "log/*.parquet", "table": "table.json"}
SECRET = "s3cr3t-of-nobody"
# No name of a class: two capitals within one word.
CLASSES = re.compile(r"\b[A-Z][a-z]+[A-Z]\w*|pydantic|Extra inputs|TunerConfig")


@pytest.fixture
def platform(tmp_path, capsys):
    return Platform(tmp_path, capsys)


def written(folder, values):
    path = folder / "tuning.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def refused(folder, values):
    with pytest.raises(hz.ConfigError) as caught:
        StudyConfig.from_file(written(folder, values))
    text = str(caught.value)
    assert not CLASSES.search(text), text
    assert text.startswith("tuning.yaml")
    return text


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"metrcs": ["a"]}, "metrcs: unknown key; did you mean 'metrics'?"),
        ({"traffic": {"num_draw": 1}}, "traffic.num_draw: unknown key; did you mean 'num_draws'?"),
        ({"Study": "x"}, "Study: unknown key; did you mean 'study'?"),
        (
            {"parameters": [{"kind": "float", "name": "w", "low": 0, "hihg": 1}]},
            "parameters.0.hihg: unknown key; did you mean 'high'?",
        ),
        (
            {"parameters": [{"kind": "flaot", "name": "w", "low": 0, "high": 1}]},
            "parameters.0: expected a 'kind' that is float, int or choice, got 'flaot'; did you "
            "mean 'float'?",
        ),
        (
            {"live": LIVE | {"alerts": {"webhok": f"https://{SECRET}"}}},
            "live.alerts.webhok: unknown key; did you mean 'webhook'?",
        ),
        (
            {"live": LIVE | {"monitoring": {"adress": "127.0.0.1"}}},
            "live.monitoring.adress: unknown key; did you mean 'address'?",
        ),
        (
            {"live": LIVE | {"metrics": {"views": {"winsorize": 0.99}}}},
            "live.metrics.views.winsorize: unknown key; did you mean 'winsorise'?",
        ),
        (
            {"sources": [{"source": "a.json", "scope": "x", "map": {"w": {"nme": "v"}}}]},
            "sources.0.map.w.nme: unknown key; did you mean 'name'?",
        ),
        (
            {"traffic": {"harm_budget": {"per_rond": 3, "users_per_round": 10}}},
            "traffic.harm_budget.per_rond: unknown key; did you mean 'per_round'?",
        ),
        ({"traffic": 3}, "traffic: expected a section with keys and values, got 3"),
        ({"live": {"events": "x", "table": "t"}}, "live.exposures: is missing, and required"),
    ],
)
def test_a_mistyped_key_is_named_with_its_place_and_the_right_one(tmp_path, change, line):
    text = refused(tmp_path, STUDY | change)
    assert f"  - {line}" in text.splitlines()
    assert SECRET not in text


def test_all_mistakes_are_named_at_once_and_an_odd_key_gets_the_list(tmp_path):
    text = refused(tmp_path, STUDY | {"zzz": 1, "traffic": {"qqq": 2}, "seed": -1})
    lines = text.splitlines()
    assert len(lines) == 4
    assert any(line.startswith("  - zzz: unknown key; known here: base, ") for line in lines)
    assert any("traffic.qqq: unknown key; known here: " in line for line in lines)
    assert any("seed: " in line and "got -1" in line for line in lines)


def test_a_key_that_is_no_text_is_named(tmp_path):
    assert "the key 3 is not a text" in refused(tmp_path, STUDY | {3: "x"})
    assert "the key None" in refused(tmp_path, STUDY | {"base": {None: 1.0}})


def test_faults_have_their_places_for_programs():
    with pytest.raises(hz.ConfigError, match=r"^TunerConfig cannot be used") as caught:
        hz.TunerConfig(num_draw=3)  # in Python the class is what was written
    assert caught.value.faults == ((("num_draw",), "unknown key; did you mean 'num_draws'?"),)


@given(st.sampled_from(sorted(hz.TunerConfig.model_fields)), st.data())
def test_a_key_with_a_letter_too_few_leads_to_the_key(key, data):
    at = data.draw(st.integers(0, len(key) - 1))
    typo = key[:at] + key[at + 1 :]
    with pytest.raises(hz.ConfigError, match="did you mean") as caught:
        hz.TunerConfig(**{typo: 1})
    near = re.search(r"did you mean '(\w+)'", str(caught.value))[1]
    assert near in hz.TunerConfig.model_fields
    assert abs(len(near) - len(key)) <= 3


def test_variables_are_filled_into_every_address_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    sources = ["sqlite:///${PLACE}.db#a", {"source": "${PLACE}.json", "scope": "s"}]
    live = {
        "exposures": "${PLACE}/x", "events": "${PLACE}/e", "covariates": "${PLACE}/c",
        "flags": "${PLACE}.flags", "flag": "${PLACE}", "monitoring": {"address": "${PLACE}"},
        "alerts": {"webhook": "https://${PLACE}.example/a"},
    }  # fmt: skip
    study = StudyConfig.from_file(
        written(
            tmp_path,
            STUDY | {"study": "${PLACE}", "journal": "sqlite:///${PLACE}.db", "sources": sources}
            | {"revocations": "${PLACE}.revoked", "live": live},
        )
    )  # fmt: skip
    assert study.journal == "sqlite:///here.db"
    assert [source.source for source in study.sources] == ["sqlite:///here.db#a", "here.json"]
    assert study.revocations == "here.revoked"
    places = study.live
    assert (places.exposures, places.events, places.covariates) == ("here/x", "here/e", "here/c")
    assert (places.flags, places.monitoring.address) == ("here.flags", "here")
    assert places.alerts.webhook == "https://here.example/a"
    assert (study.study, places.flag) == ("${PLACE}", "${PLACE}")  # names, not addresses


def test_a_doubled_sign_stands_for_itself(tmp_path):
    study = StudyConfig.from_file(written(tmp_path, STUDY | {"journal": "sqlite:///$${X}$5.db"}))
    assert study.journal == "sqlite:///${X}$5.db"


def test_missing_variables_are_one_error_that_names_all(platform, monkeypatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    monkeypatch.setenv("EMPTY", "")
    path = written(
        platform.folder,
        STUDY | {"journal": "postgresql://u:${NO_SUCH}@h/d", "sources": ["${EMPTY}#a"]},
    )
    code, out, err = platform.run("status", "-c", path)
    assert (code, out) == (3, "")
    assert "journal: the environment variable NO_SUCH is not set" in err
    assert "sources.0: the environment variable EMPTY is not set" in err
    assert list(platform.folder.iterdir()) == [path]


@pytest.mark.parametrize("text", ["${", "${}", "${A B}", "${A:-b}", "${1A}", "x${A"])
def test_what_is_no_name_of_a_variable_is_refused(tmp_path, text):
    assert "journal: '${' begins the name of a variable" in refused(
        tmp_path, STUDY | {"journal": text}
    )


@pytest.mark.parametrize(
    "change",
    [
        {"journal": "postgresql://u:${SECRET}@127.0.0.1:1/d?connect_timeout=1"},
        {"journal": "${URL}"},
        {"journal": "nonsense://u:${SECRET}@host/d"},
        {"sources": ["postgresql://u:${SECRET}@host/d"]},
        {"sources": ["${SECRET}"]},
        {"sources": [{"source": "${SECRET}#x:", "scope": "a"}]},
        {"live": LIVE | {"alerts": {"webhook": "${SECRET}"}}},
        {"live": LIVE | {"alerts": {"webhook": "https://h/${SECRET}", "webhook_env": "X"}}},
        {"live": LIVE | {"monitoring": {"address": "${SECRET}/x"}}},
    ],
)
def test_no_message_and_no_repr_shows_the_value_of_a_secret(platform, monkeypatch, change):
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("URL", f"postgresql://u:{SECRET}@127.0.0.1:1/d?connect_timeout=1")
    path = written(platform.folder, STUDY | change)
    code, out, err = platform.run("step", "-c", path)
    assert code in (3, 4), err
    assert SECRET not in out + err
    shown = ""
    with contextlib.suppress(hz.ConfigError):
        shown = repr(StudyConfig.from_file(path))
    assert SECRET not in shown


def test_a_journal_named_by_a_variable_works_as_one_that_is_written(platform, monkeypatch):
    monkeypatch.setenv("STUDY_DB", "kept.db")
    platform.start()
    study = yaml.safe_load(platform.config.read_text())
    platform.config.write_text(yaml.safe_dump(study | {"journal": "sqlite:///${STUDY_DB}"}))
    assert platform.step("--plan", platform.folder / "plan_0.json")[0] == 0
    assert (platform.folder / "kept.db").is_file()
    assert platform.run("status", "-c", platform.config)[0] == 0
    code, _, err = platform.run(  # the journal is protected under its real name
        "report", "-c", platform.config, "--out", platform.folder / "kept.db"
    )
    assert code == 3, err


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True),
                       st.text("ab:/@#$ {}%é\n", min_size=1), min_size=1))  # fmt: skip
def test_values_are_filled_in_as_they_are_and_not_read_again(environment):
    text = "/".join(f"${{{name}}}" for name in environment)
    filled = Variables(environment).filled({"journal": text, "objective": text})
    assert filled == {"journal": "/".join(environment.values()), "objective": text}
