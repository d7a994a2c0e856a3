"""A query over frames of exposures and events, in DuckDB."""

import pytest


def on_duckdb(exposures, events, query):
    """Its rows."""
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as db:
        db.register("exposures", exposures)
        db.register("events", events)
        return db.execute(query).fetchall()
