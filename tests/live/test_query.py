"""The hourly query on DuckDB and PostgreSQL, against sums by hand and against the aggregator."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import postgres
from support.on_duckdb import on_duckdb

import hyperzero_torch as hz
from hyperzero_torch.cli import main
from hyperzero_torch.cli.sql import Database
from hyperzero_torch.live import Aggregator, Metric, hourly_query
from hyperzero_torch.live.aggregate.dialects import DIALECTS

METRICS = (
    Metric("views"),
    Metric.ratio("ctr", "clicks", "impressions", winsorise=0.95),
    Metric("watch_time", winsorise=0.99),
    Metric("it's rare"),
    Metric("silent"),
)
AS_OF = 6


def logs():
    """Four hours with everything that an aggregator leaves out."""
    rng = np.random.default_rng(0)
    exposures, events = [], []
    for round_ in (2, 3, 4, 5):
        for n in range(500):
            user = f"u{n}"
            candidate = int(rng.choice([0, 3, 9], p=[0.4, 0.3, 0.3]))
            exposures += [(user, round_, candidate, "feed")] * int(rng.integers(1, 3))  # repeated
            if rng.random() < 0.03:
                exposures.append((user, round_, (candidate + 3) % 6, None))  # in two arms
            if rng.random() < 0.5:
                continue
            when = round_ + int(rng.choice([0, 1, 2]))
            for _ in range(int(rng.integers(1, 4))):
                events.append((user, round_, "views", float(rng.poisson(3)), when))
                events.append((user, round_, "watch_time", float(rng.exponential(9)), None))
            shown = float(rng.integers(0, 9))
            events.append((user, round_, "impressions", shown, when))
            events.append((user, round_, "clicks", float(rng.binomial(int(shown), 0.2)), when))
            events.append((user, round_, "of others", math.nan, when))
        events += [("u7", round_, "views", 1.0, round_)] * 40  # a bot
        events.append(("u8", round_, "views", math.nan, round_))
        events.append(("u9", round_, "clicks", math.inf, round_))
        events.append(("u10", round_, "watch_time", None, round_))
        events.append(("u11", round_, "watch_time", 1e280, round_))  # absurd
        events.append((f"ghost{round_}", round_, "views", 5.0, round_))  # not exposed
        events += [(None, round_, "views", 9.0, round_), ("", round_, "views", 9.0, round_)]
        events.append(("u12", round_, None, 9.0, round_))
        exposures += [
            (None, round_, 0, "feed"),
            ("", round_, 3, "feed"),
            ("u600", round_, -1, "feed"),
        ]
        exposures += [
            ("u601", round_, 0, "another"),
            ("u602", round_, 3, ""),
            ("u603", -1, 3, "feed"),
        ]
        if round_ != 4:  # in round 4 a rare metric has no event at all, which is a reading
            events.append(("u20", round_, "it's rare", 1.0, round_))
        exposures.append(("u604", round_, 77, "feed"))  # an arm of one user
    events += [("u1", 0, "views", 9.0, 0), ("u1", 99, "views", 9.0, 99)]
    return (
        pd.DataFrame(exposures, columns=["user_id", "round", "candidate", "study"]),
        pd.DataFrame(events, columns=["user_id", "round", "metric", "value", "arrived"]).astype(
            {"arrived": "Int64"}
        ),
    )


@pytest.fixture(scope="module")
def frames():
    return logs()


def query_of(dialect, metrics=METRICS, **options):
    given_ = {"as_of": AS_OF, "max_events": 40, "arrived": "arrived", "study": ("study", "feed")}
    return hourly_query(metrics, dialect, **given_ | options)


def is_null(column, value):
    """NULL, and not NaN, which PostgreSQL stores too."""
    return pd.isna(value) and (column != "value" or value is None)


def on_postgres(exposures, events, query):
    if postgres.why_not() is not None:
        pytest.skip(postgres.why_not())
    import sqlalchemy as sa

    engine = sa.create_engine(postgres.shared_server().schema())
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE exposures (user_id TEXT, round BIGINT, candidate BIGINT, study TEXT);"
                "CREATE TABLE events (user_id TEXT, round BIGINT, metric TEXT, "
                "value DOUBLE PRECISION, arrived BIGINT)"
            )
            cursor = connection.connection.cursor()
            for name, frame in (("exposures", exposures), ("events", events)):
                with cursor.copy(f"COPY {name} FROM STDIN") as copy:
                    for row in frame.astype(object).itertuples(index=False):
                        copy.write_row([None if is_null(c, v) else v for c, v in zip(frame, row)])
            return [tuple(row) for row in connection.exec_driver_sql(query)]
    finally:
        engine.dispose()


DATABASES = {"duckdb": on_duckdb, "postgres": on_postgres}


def by_key(rows):
    return {(int(r), int(c), m): (int(n), float(mean), float(var), int(rev))
            for r, c, m, n, mean, var, rev in rows}  # fmt: skip


def aggregated(exposures, events, metrics=METRICS, as_of=AS_OF, **options):
    pl = pytest.importorskip("polars")
    tables = (pl.from_pandas(t.rename(columns={"user_id": "user"})) for t in (exposures, events))
    served = {r: ("feed", frozenset({"e"})) for r in range(10)}
    aggregator = Aggregator(metrics, **{"max_events": 40} | options)
    readings = aggregator.aggregate(*tables, as_of=as_of, served=served).readings
    if readings is None:
        return {}
    columns = (readings.round, readings.candidate, readings.metric, readings.count, readings.mean,
               readings.var, readings.revision)  # fmt: skip
    return by_key(zip(*columns))


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for key, values in expected.items():
        assert got[key] == pytest.approx(values, rel=1e-9, abs=1e-12), key


@pytest.mark.parametrize("database", DATABASES)
def test_the_query_gives_what_the_aggregator_gives(frames, database):
    got = by_key(DATABASES[database](*frames, query_of(database)))
    assert_same(got, aggregated(*frames))
    assert {m for _, _, m in got} == {"views", "ctr", "watch_time", "it's rare"}
    assert {c for _, c, _ in got} == {0, 3, 9}
    assert (4, 0, "it's rare") in got
    assert got[4, 0, "it's rare"][1] == 0.0


@pytest.mark.parametrize("database", DATABASES)
def test_the_query_gives_what_numpy_gives(frames, database):
    """Without the aggregator: users, sums, quantiles, means and variances by hand."""
    exposures, events = frames
    arms, sums, flawed, num = {}, {}, set(), {}
    for user, round_, candidate, study in exposures.itertuples(index=False):
        is_ours = study in ("feed", "") or not isinstance(study, str)
        if isinstance(user, str) and user and candidate >= 0 and round_ == 5 and is_ours:
            arms.setdefault(user, set()).add(candidate)
    for user, round_, metric, value, arrived in events.itertuples(index=False):
        if round_ != 5 or metric not in ("views", "clicks", "impressions", "watch_time"):
            continue
        if not pd.isna(arrived) and arrived >= AS_OF:
            continue
        if pd.isna(value) or not math.isfinite(value) or value > 1e200:
            flawed.add((user, metric))
            continue
        num[user] = num.get(user, 0) + 1
        sums[user, metric] = sums.get((user, metric), 0.0) + value
    counted = {u: a for u, (a, *more) in arms.items() if not more and num.get(u, 0) <= 40}

    def column(metric, q=1.0):
        usable = {u: sums.get((u, metric), 0.0) for u in counted if (u, metric) not in flawed}
        cap = np.quantile(list(usable.values()), q)
        return {u: min(v, cap) for u, v in usable.items()}

    got = by_key(DATABASES[database](*frames, query_of(database)))
    views, time = column("views"), column("watch_time", 0.99)
    clicks, shown = column("clicks", 0.95), column("impressions", 0.95)
    for arm in (0, 3, 9):
        for metric, values in (("views", views), ("watch_time", time)):
            of_arm = [v for u, v in values.items() if counted[u] == arm]
            expected = (len(of_arm), np.mean(of_arm), np.var(of_arm, ddof=1), 0)
            assert got[5, arm, metric] == pytest.approx(expected, rel=1e-9)
        users = [u for u in clicks.keys() & shown.keys() if counted[u] == arm]
        y, x = (np.array([part[u] for u in users]) for part in (clicks, shown))
        ratio = y.sum() / x.sum()
        var = np.var((y - ratio * x) / x.mean(), ddof=1)
        assert got[5, arm, "ctr"] == pytest.approx((len(users), ratio, var, 0), rel=1e-9)


def test_later_queries_revise_and_the_window_moves(frames):
    later = by_key(on_duckdb(*frames, query_of("duckdb", as_of=7, lateness=3)))
    assert {r for r, _, _ in later} == {5}
    assert {values[-1] for values in later.values()} == {1}
    assert_same(later, aggregated(*frames, as_of=7, lateness=3))
    before = by_key(on_duckdb(*frames, query_of("duckdb")))
    assert later[5, 0, "views"] != before[5, 0, "views"]  # late events
    readings = hz.Readings.from_frame(
        pd.DataFrame(
            [(*key, *values) for key, values in later.items()],
            columns=["round", "candidate", "metric", "count", "mean", "var", "revision"],
        )
    )
    assert len(readings.round) == len(later)


def test_without_screening_only_what_is_no_number_is_left_out(frames):
    metric = [Metric("watch_time")]
    got = by_key(on_duckdb(*frames, query_of("duckdb", metric, screen=False)))
    assert max(values[1] for values in got.values()) > 1e270
    views = [Metric("views")]
    assert_same(
        by_key(on_duckdb(*frames, query_of("duckdb", views, screen=False))),
        aggregated(*frames, metrics=views),
    )


def test_a_parameter_in_place_of_the_round(frames):
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as db:
        for name, frame in zip(("exposures", "events"), frames):
            db.register(name, frame)
        rows = db.execute(query_of("duckdb", as_of=None), {"round": AS_OF}).fetchall()
    assert_same(by_key(rows), by_key(on_duckdb(*frames, query_of("duckdb"))))


cell = st.sampled_from([0.0, 1.0, 2.5, -3.0, 0.125, 7e6, math.inf, None])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(-1, 2)), max_size=25),
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 2), st.sampled_from(["a", "b", "c"]), cell),
        max_size=25,
    ),
)
def test_any_log_gives_what_the_aggregator_gives(shown, happened):
    pytest.importorskip("duckdb")
    exposures = pd.DataFrame(
        [(f"u{u}", r, c, "feed") for u, r, c in [(9, 0, 0), (8, 0, 0), *shown]],
        columns=["user_id", "round", "candidate", "study"],
    )
    rows = [(f"u{u}", r, m, v, r) for u, r, m, v in [(9, 0, "a", 1.0), *happened]]
    events = pd.DataFrame(rows, columns=["user_id", "round", "metric", "value", "arrived"])
    metrics = [Metric("a"), Metric.ratio("b per c", "b", "c"), Metric("c", winsorise=0.8)]
    got = by_key(on_duckdb(exposures, events, query_of("duckdb", metrics, as_of=3)))
    expected = aggregated(exposures, events, metrics, as_of=3)
    assert got.keys() == expected.keys()
    for key, values in expected.items():
        scale = max(abs(values[1]), math.sqrt(values[2]), 1e-12)
        assert got[key][0] == values[0]
        assert got[key][1] == pytest.approx(values[1], rel=1e-9, abs=1e-12 * scale)
        assert got[key][2] == pytest.approx(values[2], rel=1e-8, abs=1e-12 * scale**2)


OPTIONS = [dict(zip(("arrived", "study", "screen", "max_events", "as_of"), values))
           for values in itertools.product(("arrived", None), (("study", "it's"), None),
                                           (True, False), (9, None), (7, None))]  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_parsed_and_has_the_columns_of_readings(dialect):
    sqlglot = pytest.importorskip("sqlglot")
    for options in OPTIONS[::5] + OPTIONS[-1:]:
        metrics = METRICS if options["screen"] else METRICS[:1]
        text = hourly_query(metrics, dialect, **options)
        (tree,) = sqlglot.parse(text, read=dialect)
        names = [column.alias for column in tree.expressions]
        assert names == ["round", "candidate", "metric", "count", "mean", "var", "revision"]
        ctes = {cte.alias for cte in tree.ctes}
        tables = {table.name for table in tree.find_all(sqlglot.exp.Table)}
        assert tables - ctes == {"exposures", "events"}
        assert {"amounts", "counted", "cells", "arms", "usual"} <= ctes
        assert not list(tree.find_all(sqlglot.exp.Join))


def test_what_other_dialects_compute_is_what_duckdb_computes(frames):
    """Translated by sqlglot: shows that only the spelling differs."""
    sqlglot = pytest.importorskip("sqlglot")
    expected = by_key(on_duckdb(*frames, query_of("duckdb")))
    for dialect in ("bigquery", "snowflake", "redshift"):
        (text,) = sqlglot.transpile(query_of(dialect), read=dialect, write="duckdb")
        assert_same(by_key(on_duckdb(*frames, text)), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dialect": "oracle"}, "choose among"),
        ({"as_of": "1; DROP TABLE x"}, "the round must be"),
        ({"as_of": -1}, "the round must be"),
        ({"exposures": "a b"}, "exposures must be a table"),
        ({"events": "a--b"}, "events must be a table"),
        ({"events": "x; y"}, "events must be a table"),
        ({"user": "a.b"}, "the user's column must be"),
        ({"arrived": "a'b"}, "arrivals must be"),
        ({"study": ("s", "a\\b")}, "backslash"),
        ({"metrics": ["a\nb"]}, "control character"),
        ({"metrics": [Metric("a", covariate=True)]}, "covariate"),
        ({"lateness": 1}, "lateness must be"),
        ({"max_events": 0}, "max_events must be"),
    ],
)
def test_what_cannot_be_written_is_refused(options, message):
    given_ = {"metrics": ["views"], "dialect": "postgres"} | options
    with pytest.raises(hz.ConfigError, match=message):
        hourly_query(given_.pop("metrics"), given_.pop("dialect"), **given_)


FILE = {
    "study": "feed",
    "parameters": [{"kind": "float", "name": "w", "low": 0, "high": 1}],
    "base": {"w": 0.5},
    "metrics": [m.name for m in METRICS],
    "objective": "views",
}
LIVE = {
    "exposures": "e/*.parquet", "events": "v/*.parquet", "flags": "flags.json", "max_events": 40,
    "metrics": {
        "ctr": {"numerator": "clicks", "denominator": "impressions", "winsorise": 0.95},
        "watch_time": {"winsorise": 0.99},
    },
}  # fmt: skip


def test_the_command_prints_the_query_of_a_study_file(tmp_path, capsys, frames):
    file = tmp_path / "tuning.json"
    file.write_text(json.dumps(FILE | {"live": LIVE}))
    words = ["sql", "-c", str(file), "--dialect", "duckdb", "--round", str(AS_OF)]
    words += ["--arrived-column", "arrived", "--study-column", "study"]
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert printed.strip() == query_of("duckdb").strip()
    assert_same(by_key(on_duckdb(*frames, printed)), aggregated(*frames))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tuning.json"]


def test_the_command_knows_all_dialects():
    assert sorted(Database) == sorted(DIALECTS)


@pytest.mark.parametrize(
    ("change", "words", "code"),
    [
        ({}, ["--dialect", "oracle"], 2),
        ({}, ["--dialect", "postgres", "--round", "now()"], 3),
        ({"live": LIVE | {"covariates": "c", "metrics": {"views": {"covariate": True}}}},
         ["--dialect", "postgres"], 3),
    ],
)  # fmt: skip
def test_the_command_refuses_with_one_message(tmp_path, capsys, change, words, code):
    file = tmp_path / "tuning.json"
    file.write_text(json.dumps(FILE | change))
    with pytest.raises(SystemExit) as done:
        main(["sql", "-c", str(file), *words])
    assert done.value.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
