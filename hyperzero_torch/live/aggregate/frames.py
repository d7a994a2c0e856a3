"""The frames that an aggregation reads, validated: one engine, needed columns, usable values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import narwhals as nw

from ...errors import HyperZeroError, MissingExtraError, ReadingsError
from ..users import plain_users
from .parquet import open_files

ENGINES = ("pandas", "polars", "duckdb", "pyspark", "pyspark_connect")
COLUMNS = {
    "exposures": ("user", "round", "candidate"),
    "events": ("user", "round", "metric", "value"),
    "covariates": ("user", "metric", "value"),
}
#: Columns that are used where a frame has them.
OPTIONAL = {"exposures": ("study", "epoch"), "events": ("arrived",), "covariates": ()}
_TEXTS = ("metric", "study", "epoch")
_MAX_WHOLE = 2.0**53  # above it a float holds no whole numbers one by one


class Tables:
    """The frames, all of one engine, with the needed columns in common types.

    Args:
        exposures, events, covariates: frames, or paths of Parquet files; covariates may be None.
        read_all: read every Parquet file to its end first, to find those that are damaged.
    """

    def __init__(
        self, exposures: Any, events: Any, covariates: Any, read_all: bool = False
    ) -> None:
        given = {"exposures": exposures, "events": events, "covariates": covariates}
        given = {name: frame for name, frame in given.items() if frame is not None}
        self._connection: Any = None
        self._read_all = read_all
        self.faults: dict[str, int] = {}
        try:
            frames = self._frames(given)
        except BaseException:
            self.close()
            raise
        self.exposures, self.events = frames["exposures"], frames["events"]
        self.covariates = frames.get("covariates")
        self.has_arrivals = "arrived" in self.events.collect_schema().names()

    def _frames(self, given: Mapping[str, Any]) -> dict[str, nw.LazyFrame[Any]]:
        opened = {name: self._open(name, frame) for name, frame in given.items()}
        kinds = {
            name: "Parquet paths" if paths(frame) is not None else opened[name].implementation.value
            for name, frame in given.items()
        }
        if len(set(kinds.values())) > 1:
            raise ReadingsError(f"the frames must come from one engine, got {kinds}")
        typed = {name: _typed(name, frame) for name, frame in opened.items()}
        users = {name: kind for name, (_, kind) in typed.items()}
        if len({kind == "text" for kind in users.values()}) > 1:
            raise ReadingsError(f"the frames must name users in one type, got {users}")
        if len(set(users.values())) == 1:
            return {name: frame for name, (frame, _) in typed.items()}
        return {n: f.with_columns(nw.col("user").cast(nw.String)) for n, (f, _) in typed.items()}

    def _open(self, name: str, frame: Any) -> nw.LazyFrame[Any]:
        files = paths(frame)
        if files is not None:
            frame = self._read_parquet(name, files)
        try:
            table = nw.from_native(frame)
        except TypeError:
            table = None
        except Exception as error:
            raise ReadingsError(f"{name} cannot be read: {error}") from error
        engine = getattr(getattr(table, "implementation", None), "value", None)
        if table is None or engine not in ENGINES:
            raise ReadingsError(
                f"{name} must be a frame of pandas, Polars, DuckDB or PySpark, or paths of Parquet "
                f"files, got {type(frame).__name__}"
            )
        lazy: nw.LazyFrame[Any] = _with_plain_users(table).lazy()
        return lazy

    def _read_parquet(self, name: str, files: list[str]) -> Any:
        try:
            import duckdb
            import pyarrow  # noqa: F401  (DuckDB hands its results over in Arrow's format)
        except ImportError as error:
            missing = error.name or "duckdb"
            raise MissingExtraError("aggregating Parquet files", missing, "duckdb") from None
        if not files:
            raise ReadingsError(f"{name}: the list of Parquet files is empty")
        if self._connection is None:
            self._connection = duckdb.connect()
        relation, faults = open_files(
            self._connection,
            name,
            files,
            (*COLUMNS[name], *OPTIONAL[name]),
            lambda table: _flaw(name, nw.from_native(table).lazy()),
            self._read_all,
        )
        self.faults |= faults
        return relation

    def close(self) -> None:
        """Close the connection that read Parquet files; a caller's own connection stays open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def paths(frame: Any) -> list[str] | None:
    """The paths of Parquet files that are given in place of a frame; None for a frame."""
    if isinstance(frame, str | Path):
        return [str(frame)]
    if isinstance(frame, list | tuple) and all(isinstance(f, str | Path) for f in frame):
        return [str(f) for f in frame]
    return None


def _with_plain_users(table: Any) -> Any:
    """A frame whose users are UUIDs or decimals as Python objects, with texts or whole numbers.

    What names no user becomes a missing value, whose row is left out and counted.
    """
    if not isinstance(table, nw.DataFrame) or table.schema.get("user") != nw.Object:
        return table
    users = plain_users(table["user"].to_list())
    if table.implementation.is_pandas() and not any(isinstance(user, str) for user in users):
        column = table["user"].to_native()  # its Int64 is the one that holds missing values
        users = type(column)(users, index=column.index, dtype="Int64")
        return nw.from_native(table.to_native().assign(user=users))
    dtype = nw.String if any(isinstance(user, str) for user in users) else nw.Int64
    return table.with_columns(nw.new_series("user", users, dtype, backend=table.implementation))


def _flaw(name: str, frame: nw.LazyFrame[Any]) -> str | None:
    """Why a table cannot be used; None where it can."""
    try:
        _typed(name, frame)
    except ReadingsError as error:
        return str(error)
    return None


def _typed(name: str, frame: nw.LazyFrame[Any]) -> tuple[nw.LazyFrame[Any], str]:
    """The needed columns in Int64, Float64 and String, and the type of the users, in words.

    Whole numbers may come as floats, as they do from a column that has had a missing value.
    """
    try:
        schema = frame.collect_schema()
    except Exception as error:
        raise ReadingsError(f"{name} cannot be read: {error}") from error
    missing = [c for c in COLUMNS[name] if c not in schema]
    if missing:
        raise ReadingsError(
            f"{name} need the columns {list(COLUMNS[name])}: missing {missing}, got {list(schema)}"
        )
    columns: list[nw.Expr] = []
    faults, kind = [], ""
    optional = [column for column in OPTIONAL[name] if column in schema]
    for column in (*COLUMNS[name], *optional):
        dtype = schema[column]
        text = isinstance(dtype, nw.String | nw.Categorical | nw.Enum)
        to: Any = nw.String if text else nw.Int64
        if column == "user":
            if isinstance(dtype, nw.Unknown):  # DuckDB's UUID
                text, to = True, nw.String
            if not text and dtype in (nw.UInt64, nw.Int128, nw.UInt128):
                to = nw.String  # Int64 could not hold them all
            kind = "text" if text else f"integer ({'wide' if to == nw.String else 'Int64'})"
            is_decimal = isinstance(dtype, nw.Decimal)
            is_valid, expected = text or is_decimal or dtype.is_integer(), "integers or text"
            if is_decimal:  # a fraction names no user: it must not be rounded to another one
                whole = nw.col("user").cast(nw.Int64)
                columns.append(nw.when(nw.col("user") == whole).then(whole).alias("user"))
                continue
        elif column in _TEXTS:
            is_null = column in OPTIONAL[name] and isinstance(dtype, nw.Unknown)  # in every row
            is_valid, expected, to = text or is_null, "text", nw.String
        elif column == "value":
            is_valid, expected, to = dtype.is_numeric(), "numbers", nw.Float64
        else:
            is_valid, expected = dtype.is_integer() or dtype.is_float(), "integers"
        if not is_valid:
            faults.append(f"column {column!r} must hold {expected}, got {dtype}")
        value = nw.col(column)
        if to == nw.Int64 and dtype.is_float():
            value = _whole(value, column)
        columns.append(value.cast(to))
    if faults:
        raise ReadingsError(f"{name} are refused, nothing was aggregated:", faults)
    return frame.select(*columns), kind


def _whole(value: nw.Expr, column: str) -> nw.Expr:
    """A float column as whole numbers; -1, which is no round and no candidate, for other values."""
    is_known = ~value.is_null() & value.is_finite() & (value.abs() < _MAX_WHOLE)
    value = nw.when(is_known).then(value).otherwise(-1.0)
    floor = value.floor()
    if column == "arrived":
        return floor.alias(column)
    return nw.when(value == floor).then(value).otherwise(-1.0).alias(column)


def in_window(window: list[int]) -> nw.Expr:
    """Rows of the window's rounds, and rows of no valid round, which are counted later."""
    at = nw.col("round")
    inside = (at >= window[0]) & (at <= window[-1])
    if len(window) < window[-1] - window[0] + 1:
        inside = at.is_in(window)
    return inside | (at < 0) | at.is_null()


def collect(frame: nw.LazyFrame[Any], what: str) -> list[dict[str, Any]]:
    """The rows of a small aggregate.

    Raises:
        ReadingsError: the engine fails; ``what`` names the step.
    """
    with engine_errors(what):
        return frame.collect().rows(named=True)


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turn an engine's error into a `ReadingsError`; the engines share no base class of errors."""
    try:
        yield
    except (HyperZeroError, MemoryError):
        raise
    except Exception as error:
        raise ReadingsError(f"the engine failed at {what}: {error}") from error
