"""A user is the same user as a text, a number, a decimal and a UUID, in every part."""

import math
from decimal import Decimal
from hashlib import blake2b
from uuid import UUID

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given

import hyperzero_torch as hz
from hyperzero_torch.live import (
    Aggregator,
    FlagdUpdater,
    TableUpdater,
    ThetaClient,
    assign,
    bucket,
    read_table,
)
from hyperzero_torch.live.users import plain_users, user_key

duckdb = pytest.importorskip("duckdb")

FORMS = {
    "int": (int, str),
    "numpy int": (np.int64, str),
    "unsigned": (np.uint32, str),
    "numpy text": (lambda n: np.str_(n), str),
    "Decimal": (Decimal, str),
    "Decimal of a NUMERIC(9, 2)": (lambda n: Decimal(n).quantize(Decimal("1.00")), str),
    "float": (float, str),
    "UUID": (lambda n: UUID(int=n), lambda n: f"00000000-0000-0000-0000-{n:012x}"),
}
NO_USERS = [True, np.True_, b"17", 17.5, Decimal("17.5"), Decimal("NaN"), math.nan, math.inf]
NO_USERS += [2.0**60, ("17",), ["17"], object(), 1j]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A plan in a flag and in a table."""
    folder = tmp_path_factory.mktemp("served")
    problem = hz.Problem(hz.SearchSpace([hz.Float("w", 0.0, 1.0)]), {"w": 0.2}, ["v"], "v")
    plan = hz.Tuner(problem, hz.TunerConfig(initial_candidates=4), seed=0).ask()
    FlagdUpdater(folder / "flags.json").apply(plan)
    TableUpdater(folder / "table.json").apply(plan)
    return folder, problem.base, plan


@pytest.mark.parametrize("form", FORMS)
def test_a_user_has_the_same_arm_in_every_type(served, form):
    pytest.importorskip("openfeature.contrib.provider.flagd")
    folder, base, plan = served
    make, text = FORMS[form]
    table = read_table(folder / "table.json")
    seen = set()
    with ThetaClient.open(folder / "flags.json", base) as client:
        for n in range(200):
            by_type, by_text = client.assign(make(n)), client.assign(text(n))
            assert by_type == by_text
            assert (by_type.round, by_type.reason) == (plan.round, "planned")
            by_table = assign(table, make(n))
            assert by_table == assign(table, text(n))
            assert (by_table.round, by_table.reason) == (plan.round, "planned")
            seen |= {by_type.candidate}
            assert bucket(make(n), 3, "salt") == bucket(text(n), 3, "salt")
    assert seen == set(plan.candidate_ids)  # not all the control


def test_a_place_is_the_documented_digest():
    digest = blake2b(b"value-model\x0017\x0042").digest()
    place = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
    assert bucket(42, 17, "value-model") == bucket("42", 17, "value-model") == place


@pytest.mark.parametrize("user", NO_USERS, ids=lambda user: type(user).__name__)
def test_what_names_no_user_is_said_and_takes_no_part(served, user):
    pytest.importorskip("openfeature.contrib.provider.flagd")
    folder, base, _ = served
    with ThetaClient.open(folder / "flags.json", base) as client:
        answers = [client.assign(user), assign(read_table(folder / "table.json"), user)]
    for answer in answers:
        assert (answer.candidate, answer.round) == (0, None)
        assert "a user is named by a text, a whole number or a UUID" in answer.reason
        assert type(user).__name__ in answer.reason
    with pytest.raises(hz.errors.InputError, match="a text, a whole number or a UUID"):
        bucket(user, 0, "salt")


@pytest.mark.parametrize("user", [None, ""])
def test_without_a_user_there_is_no_part(served, user):
    pytest.importorskip("openfeature.contrib.provider.flagd")
    folder, base, _ = served
    with ThetaClient.open(folder / "flags.json", base) as client:
        assert client.assign(user).reason == "no user"
    assert assign(read_table(folder / "table.json"), user).reason == "no user"


# --- the aggregator -----------------------------------------------------------------------------

NUM_USERS = 40


def frames(make):
    """Exposures and events; users without events count as zeros."""
    exposures = {"user": [make(n) for n in range(NUM_USERS)], "round": [1] * NUM_USERS}
    exposures["candidate"] = [n % 2 for n in range(NUM_USERS)]
    active = [n for n in range(NUM_USERS) if n % 3]
    events = {"user": [make(n) for n in active], "round": [1] * len(active)}
    events |= {"metric": ["m"] * len(active), "value": [float(n + 1) for n in active]}
    return exposures, events


def expected():
    """Count, mean and variance of each arm, summed by hand."""
    rows = []
    for arm in (0, 1):
        values = [n + 1.0 if n % 3 else 0.0 for n in range(NUM_USERS) if n % 2 == arm]
        rows.append((len(values), np.mean(values), np.var(values, ddof=1)))
    return np.array(rows)


def on_duckdb(*parts, cast):
    connection = duckdb.connect()
    relations = []
    for part in parts:
        frame = pd.DataFrame(part)
        frame["user"] = frame["user"].astype(str)
        relation = connection.from_df(frame)
        relations.append(relation.project(f"* REPLACE (CAST(user AS {cast}) AS user)"))
    return relations


def pandas(*parts):
    return [pd.DataFrame(part, index=range(9, 9 + len(part["round"]))) for part in parts]


def polars(*parts):
    users = [pl.Series("user", p["user"], dtype=pl.Object) for p in parts]
    return [pl.DataFrame({**p, "user": u}) for p, u in zip(parts, users)]


def polars_decimal(*parts):
    return [pl.DataFrame(part) for part in parts]


def uuid(n):
    return UUID(int=n)


CASES = {
    "pandas UUID": (pandas, uuid),
    "pandas Decimal": (pandas, Decimal),
    "pandas int": (pandas, int),
    "polars UUID": (polars, uuid),
    "polars Decimal": (polars_decimal, Decimal),
    "duckdb UUID": (lambda *p: on_duckdb(*p, cast="UUID"), uuid),
    "duckdb DECIMAL(38, 0)": (lambda *p: on_duckdb(*p, cast="DECIMAL(38, 0)"), int),
    "duckdb DECIMAL(18, 3)": (lambda *p: on_duckdb(*p, cast="DECIMAL(18, 3)"), int),
    "duckdb HUGEINT": (lambda *p: on_duckdb(*p, cast="HUGEINT"), int),
    "duckdb UBIGINT": (lambda *p: on_duckdb(*p, cast="UBIGINT"), int),
}


@pytest.mark.parametrize("case", CASES)
def test_the_aggregator_counts_users_of_every_type(case):
    engine, make = CASES[case]
    result = Aggregator(["m"]).aggregate(*engine(*frames(make)), as_of=2)
    assert not result.excluded_rounds
    readings = result.readings
    found = np.stack([readings.count, readings.mean, readings.var], axis=1)
    np.testing.assert_allclose(found[np.argsort(readings.candidate)], expected(), rtol=1e-12)


def test_decimal_and_integer_users_of_two_frames_are_the_same_users():
    exposures, events = frames(int)
    events["user"] = [Decimal(n) for n in events["user"]]
    result = Aggregator(["m"]).aggregate(pd.DataFrame(exposures), pd.DataFrame(events), as_of=2)
    assert result.excluded_users[1]["unexposed"] == 0
    np.testing.assert_allclose(np.sort(result.readings.mean), np.sort(expected()[:, 1]))


def test_uuids_and_their_texts_are_the_same_users():
    exposures, events = frames(uuid)
    events["user"] = list(map(str, events["user"]))
    result = Aggregator(["m"]).aggregate(pd.DataFrame(exposures), pd.DataFrame(events), as_of=2)
    assert result.excluded_users[1]["unexposed"] == 0
    np.testing.assert_allclose(np.sort(result.readings.mean), np.sort(expected()[:, 1]))


@pytest.mark.parametrize("case", ["polars Decimal", "duckdb DECIMAL(18, 3)", "pandas Decimal"])
def test_a_fraction_is_rounded_to_no_other_user_and_is_counted(case):
    engine, _ = CASES[case]
    parts = frames(lambda n: Decimal(n) if n != 5 else Decimal("6.5"))
    for part in parts:
        part["user"] = [Decimal(user).quantize(Decimal("1.0")) for user in part["user"]]
    result = Aggregator(["m"]).aggregate(*engine(*parts), as_of=2)
    assert [n for fault, n in result.faults.items() if "no user" in fault] == [1, 1]
    values = {
        arm: [n + 1.0 if n % 3 else 0.0 for n in range(NUM_USERS) if n % 2 == arm and n != 5]
        for arm in (0, 1)
    }
    rows = zip(result.readings.candidate.tolist(), result.readings.count, result.readings.mean)
    for arm, count, mean in rows:
        assert (count, mean) == (len(values[arm]), pytest.approx(np.mean(values[arm])))


def test_parquet_files_with_uuids(tmp_path):
    exposures, events = on_duckdb(*frames(uuid), cast="UUID")
    exposures.write_parquet(str(tmp_path / "exposures.parquet"))
    events.write_parquet(str(tmp_path / "events.parquet"))
    paths = [tmp_path / "exposures.parquet", tmp_path / "events.parquet"]
    result = Aggregator(["m"]).aggregate(*paths, as_of=2)
    np.testing.assert_allclose(np.sort(result.readings.mean), np.sort(expected()[:, 1]))


# --- keys ---------------------------------------------------------------------------------------


@given(st.integers())
def test_numbers_of_any_type_have_one_key(number):
    assert user_key(number) == user_key(Decimal(number)) == user_key(str(number)) == str(number)


@given(st.text(), st.text())
def test_texts_are_their_own_keys(first, second):
    assert (user_key(first), user_key(second)) == (first, second)


@given(st.lists(st.one_of(st.none(), st.text(), st.integers(), st.uuids(), st.decimals())))
def test_a_column_becomes_one_type_without_what_names_no_user(users):
    plain = plain_users(users)
    wrong = [
        isinstance(u, Decimal) and (not u.is_finite() or u.as_integer_ratio()[1] != 1)
        for u in users
    ]
    assert [p is None for p in plain] == [u is None or w for u, w in zip(users, wrong)]
    assert len({type(p) for p in plain if p is not None}) <= 1
    keys = [user_key(u) for u, w in zip(users, wrong) if u is not None and not w]
    assert [str(p) for p in plain if p is not None] == keys
