"""The query that the pages show for readings, on DuckDB and PostgreSQL, against sums by hand."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import postgres
from support.on_duckdb import on_duckdb

import hyperzero_torch as hz
from hyperzero_torch.live import Aggregator

PAGE = (Path(__file__).parents[2] / "docs/how-to/platform.md").read_text(encoding="utf-8")
QUERY = re.search(r'QUERY = """\n(.*?)"""', PAGE, re.S)[1]
METRICS = ("views", "watch_time")


@pytest.fixture(scope="module")
def logs():
    """Two hours; some users have no events, some are served two arms, some were never exposed."""
    rng = np.random.default_rng(0)
    exposures, events = [], []
    for round_ in (3, 4):
        for user in range(3000):
            candidate = int(rng.integers(0, 3))
            exposures += [(user, round_, candidate)] * int(rng.integers(1, 3))
            if rng.random() < 0.02:
                exposures.append((user, round_, (candidate + 1) % 3))
            # A treatment makes more users active, each as active as before.
            if rng.random() < (0.3 if candidate else 0.2):
                for _ in range(int(rng.integers(1, 4))):
                    events.append((user, round_, "views", float(rng.poisson(3) + 1)))
                events.append((user, round_, "watch_time", round(float(rng.exponential(9)), 3)))
                events.append((user, round_, "a metric of others", 1.0))
        events += [(9000 + n, round_, "views", 100.0) for n in range(50)]
    exposures.append((1, 5, 2))  # one user alone has no variance
    return (
        pd.DataFrame(exposures, columns=["user_id", "round", "candidate"]),
        pd.DataFrame(events, columns=["user_id", "round", "metric", "value"]),
    )


def by_hand(exposures, events):
    """round, candidate, metric -> count, mean, variance over all exposed users."""
    arms, sums = {}, {}
    for user, round_, candidate in exposures.itertuples(index=False):
        arms.setdefault((user, round_), set()).add(candidate)
    for user, round_, metric, value in events.itertuples(index=False):
        sums[user, round_, metric] = sums.get((user, round_, metric), 0.0) + value
    values = {}
    for (user, round_), candidates in arms.items():
        if len(candidates) == 1:
            for metric in METRICS:
                cell = values.setdefault((round_, *candidates, metric), [])
                cell.append(sums.get((user, round_, metric), 0.0))
    return {key: (len(v), np.mean(v), np.var(v, ddof=1)) for key, v in values.items() if len(v) > 1}


def on_postgres(exposures, events, query):
    if postgres.why_not() is not None:
        pytest.skip(postgres.why_not())
    import sqlalchemy as sa

    engine = sa.create_engine(postgres.shared_server().schema())
    try:
        with engine.begin() as connection:
            exposures.to_sql("exposures", connection, index=False)
            events.to_sql("events", connection, index=False)
            return [tuple(row) for row in connection.execute(sa.text(query))]
    finally:
        engine.dispose()


DATABASES = {"DuckDB": on_duckdb, "PostgreSQL": on_postgres}


@pytest.mark.parametrize("database", DATABASES)
def test_the_query_counts_users_without_events_as_zeros(logs, database):
    rows = DATABASES[database](*logs, QUERY)
    expected = by_hand(*logs)
    assert [row[:3] for row in rows] == sorted(expected)
    for *key, count, mean, var in rows:
        assert count == expected[tuple(key)][0]
        assert (float(mean), float(var)) == pytest.approx(expected[tuple(key)][1:], rel=1e-9)


@pytest.mark.parametrize("database", DATABASES)
def test_the_answer_is_a_message_with_the_right_delta(logs, database):
    rows = DATABASES[database](*logs, QUERY)
    names = ("round", "candidate", "metric", "count", "mean", "var")
    readings = hz.Readings.from_frame(pd.DataFrame(rows, columns=names))
    of = {
        (r, c): m
        for r, c, metric, m in zip(
            readings.round.tolist(), readings.candidate.tolist(), readings.metric, readings.mean
        )
        if metric == "views"
    }
    # Half as many active users again: without the zeros the delta would be about 0.
    deltas = [of[r, c] / of[r, 0] - 1 for r in (3, 4) for c in (1, 2)]
    assert np.mean(deltas) == pytest.approx(0.5, abs=0.15)


def test_the_aggregator_says_the_same(logs):
    exposures, events = (frame.rename(columns={"user_id": "user"}) for frame in logs)
    found = Aggregator(METRICS).aggregate(exposures, events, as_of=5).readings
    columns = (found.round, found.candidate, found.metric, found.count, found.mean, found.var)
    expected = by_hand(*logs)
    seen = {(int(r), int(c), m): (n, mean, var) for r, c, m, n, mean, var in zip(*columns)}
    assert seen.keys() == expected.keys()
    for key, values in expected.items():
        assert seen[key] == pytest.approx(values, rel=1e-9)


def test_the_page_says_so():
    text = PAGE[: PAGE.index("Tidy rows from any data frame")]
    assert "Users without events count as zeros" in text
    assert QUERY.count("COALESCE(value, 0)") == 2
