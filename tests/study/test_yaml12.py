"""Study files are read as YAML 1.2, and what is served has the type that the file shows."""

import datetime
import json
import math

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given

import hyperzero_torch as hz
from hyperzero_torch.study.config.yaml12 import read_yaml, write_yaml

STUDY = """\
study: s
parameters:
  - {parameter}
base: {base}
metrics: [views]
objective: views
traffic: {{initial_candidates: 6}}
"""


def study(folder, parameter, base, name="study.yaml"):
    text = STUDY.format(parameter=parameter, base=base)
    (folder / name).write_text(text)
    return hz.StudyConfig.from_file(folder / name)


@pytest.mark.parametrize(
    ("options", "base", "meant"),
    [
        ("[1e-4, 1e-3, 0.01]", "1e-3", [1e-4, 1e-3, 0.01]),
        ("[1E3, 1e+4]", "1e3", [1000.0, 10000.0]),
        ("[1, 2.5]", "1", [1, 2.5]),
        ("[0x1F, 0o17]", "31", [31, 15]),
        ("[on, off, auto]", "auto", ["on", "off", "auto"]),
        ("[GB, NO, SE]", "NO", ["GB", "NO", "SE"]),
        ("[y, n, Yes]", "y", ["y", "n", "Yes"]),
        ("[12:30, 13:30]", "12:30", ["12:30", "13:30"]),
        ("[010, 011]", "010", ["010", "011"]),
        ("[1_000, 2_000]", "1_000", ["1_000", "2_000"]),
        ("[2026-01-31, 2026-02-01]", "2026-01-31", ["2026-01-31", "2026-02-01"]),
        ("[true, false]", "true", [True, False]),
        ("['true', 'false']", "'true'", ["true", "false"]),
        ("['1', '2']", "'1'", ["1", "2"]),
        ("[=, <]", "=", ["=", "<"]),
    ],
)
def test_the_options_that_are_served_have_the_types_of_yaml_1_2(tmp_path, options, base, meant):
    read = study(tmp_path, f"{{kind: choice, name: m, options: {options}}}", f"{{m: {base}}}")
    plan = hz.Tuner(read.problem(), read.traffic, seed=0).ask()
    served = {repr(arm["m"]) for arm in plan.parameters}
    assert served == set(map(repr, meant))


def test_bounds_and_base_in_powers_of_ten_are_numbers(tmp_path):
    read = study(tmp_path, "{kind: float, name: m, low: 1e-5, high: 1e-1}", "{m: 1e-3}")
    assert read.problem().base == {"m": 0.001}
    assert (read.parameters[0].low, read.parameters[0].high) == (1e-5, 0.1)


@pytest.mark.parametrize(
    ("options", "types"),
    [
        ("['1', 2]", "'1' is a text, 2 is a number"),
        ("[true, 2]", "True is true or false, 2 is a number"),
        ("[on, true]", "'on' is a text, True is true or false"),
        ("[010, 8]", "'010' is a text, 8 is a number"),
        ("[1.5, a, false]", "1.5 is a number, 'a' is a text, False is true or false"),
    ],
)
def test_options_of_mixed_types_are_refused(tmp_path, options, types):
    with pytest.raises(hz.ConfigError, match=f"'m' are of several types: {types}; .*quotes"):
        study(tmp_path, f"{{kind: choice, name: m, options: {options}}}", "{m: 1}")


def test_mixed_types_are_refused_in_json_too(tmp_path):
    values = yaml.safe_load(STUDY.format(parameter="{kind: choice, name: m}", base="{m: a}"))
    values["parameters"][0]["options"] = ["a", 1]
    (tmp_path / "study.json").write_text(json.dumps(values))
    with pytest.raises(hz.ConfigError, match="'a' is a text, 1 is a number"):
        hz.StudyConfig.from_file(tmp_path / "study.json")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("s.yaml", "study: a\nseed: 1\nstudy: b\n", "'study' stands in line 1 already.*line 3"),
        ("s.yaml", "live: {events: a, events: b}\n", "'events' stands in line 1 already"),
        ("s.json", '{"study": "a", "seed": 1, "study": "b"}', r"stand twice: \['study'\]"),
        ("s.json", '{"live": {"events": "a", "events": "b"}}', r"stand twice: \['events'\]"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(hz.ConfigError, match=f"(?s){reason}"):
        hz.StudyConfig.from_file(tmp_path / name)


def test_merged_keys_are_no_repetition():
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, x: 4}\n"
    assert read_yaml(text) == {
        "a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 4, "y": 3},
    }  # fmt: skip


def core_schema(text):
    """The type of a plain value by the rules of YAML 1.2.2, without regular expressions."""
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    digits = text.lstrip("+-") if text[:1] in ("+", "-") and text[1:2] not in ("+", "-") else text
    mantissa, mark, exponent = digits.lower().partition("e")
    whole, _, decimals = mantissa.partition(".")
    is_number = mantissa.count(".") <= 1 and (whole + decimals).isdigit()
    if mark:
        exponent = exponent[1:] if exponent[:1] in ("+", "-") else exponent
        is_number = is_number and exponent.isdigit()
    if is_number and not (len(whole) > 1 and whole[0] == "0"):
        return float(text) if mark or "." in mantissa else int(text)
    return text


@given(st.text("0123456789+-.eE_:aonyYNtrue", min_size=1, max_size=6))
def test_plain_values_follow_the_core_schema(text):
    try:
        tokens = list(yaml.scan(text))
    except yaml.YAMLError:
        return
    scalars = [t for t in tokens if isinstance(t, yaml.ScalarToken)]
    if len(tokens) != 3 or len(scalars) != 1 or scalars[0].value != text:
        return  # a sequence, a mapping or an alias, not one plain value
    assert repr(read_yaml(text)) == repr(core_schema(text))


# PyYAML itself writes line ends of Unicode in a form that it does not read back.
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=6)
PLAIN = st.one_of(
    TEXT,
    st.text("0123456789.eE+-:_xo", max_size=6),
    st.sampled_from(["on", "NO", "y", "~", "null", "=", "<<", "1e-4", "0o17", "2026-01-31", ".5"]),
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
)


@given(st.dictionaries(TEXT, st.lists(PLAIN, max_size=4), max_size=4))
def test_what_is_written_is_read_back_by_both_versions(values):
    text = write_yaml(values)
    assert repr(read_yaml(text)) == repr(values)
    assert repr(yaml.safe_load(text)) == repr(values)


def test_the_table_of_the_module_is_true():
    ours = {"1e-4": 1e-4, "on": "on", "NO": "NO", "12:30": "12:30", "010": "010", "1_000": "1_000"}
    ours |= {"0b11": "0b11", "2026-01-31": "2026-01-31"}
    theirs = {"1e-4": "1e-4", "on": True, "NO": False, "12:30": 750, "010": 8, "1_000": 1000}
    theirs |= {"0b11": 3, "2026-01-31": datetime.date(2026, 1, 31)}
    for text in ours:
        assert (read_yaml(text), yaml.safe_load(text)) == (ours[text], theirs[text])
    assert math.isinf(read_yaml(".inf"))
