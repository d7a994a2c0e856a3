"""What a platform reports: users, sample mean and sample variance per arm, metric and round.

Validation happens here, once, as far as it needs no knowledge of the study; the tuner adds what
only it can know (candidates, rounds and metrics that exist, revisions that contradict).
A message is taken whole or refused whole.
"""

from __future__ import annotations

import csv
import json
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import torch
from numpy.typing import NDArray

from .errors import MissingExtraError, ReadingsError

COLUMNS = ("round", "candidate", "metric", "count", "mean", "var")
OPTIONAL_COLUMNS = ("revision",)
MAX_ROWS_NAMED = 10
_MAX_ID = 2**53


class Readings:
    """One message of readings, in tidy rows that have been checked.

    Args:
        round: the round in which the arms were served.
        candidate_ids: ``(arms,)``; 0 is the control.
        count: users, ``(arms,)`` or ``(arms, metrics)``; a row with count 0 says nothing.
        mean: sample mean of single users' values, ``(arms,)`` for one metric or
            ``(arms, metrics)``, in the metric's unit.
        var: sample variance of single users' values, same shape as ``mean``.
        metrics: names of the columns; by default all metrics of the problem in their order.
        revision: a higher one replaces what was said before.
    Raises:
        ReadingsError: wrong shapes, NaN, infinity, a negative count or variance, a row twice, or
            a control mean of zero; every offending row is named, up to a limit.
    """

    def __init__(
        self,
        round: int,
        candidate_ids: Sequence[int] | torch.Tensor | NDArray[Any],
        count: Any,
        mean: Any,
        var: Any,
        *,
        metrics: Sequence[str] | None = None,
        revision: int = 0,
    ) -> None:
        if metrics is not None and (isinstance(metrics, str) or not isinstance(metrics, Iterable)):
            raise ReadingsError(f"metrics must be a list of names, got {metrics!r}")
        round_, revision_ = _scalar(round, "round"), _scalar(revision, "revision")
        ids = _array(candidate_ids, "candidate_ids")
        mean_, var_, count_ = _array(mean, "mean"), _array(var, "var"), _array(count, "count")
        arms = ids.shape[0] if ids.ndim == 1 else -1
        if mean_.ndim not in (1, 2) or mean_.shape[0] != arms or var_.shape != mean_.shape:
            raise ReadingsError(
                "candidate_ids must be (arms,), mean and var (arms,) or (arms, metrics), got "
                f"{ids.shape}, {mean_.shape} and {var_.shape}"
            )
        width = 1 if mean_.ndim == 1 else mean_.shape[1]
        mean_, var_ = mean_.reshape(arms, width), var_.reshape(arms, width)
        if count_.shape not in ((arms,), (arms, width)):
            raise ReadingsError(
                f"count must be ({arms},) or ({arms}, {width}) like mean, got {count_.shape}"
            )
        names = list(range(width) if metrics is None else metrics)
        if len(names) != width:
            raise ReadingsError(f"metrics names {len(names)} columns, mean has {width}")
        self._fill(
            round=np.full(arms * width, round_, dtype=object),
            candidate=np.repeat(ids, width),
            metric=np.tile(_objects(names), arms),
            count=np.broadcast_to(
                count_[:, None] if count_.ndim == 1 else count_, (arms, width)
            ).reshape(-1),
            mean=mean_.reshape(-1),
            var=var_.reshape(-1),
            revision=np.full(arms * width, revision_, dtype=object),
            where=lambda row: f"arm {row // width}",
        )

    def __len__(self) -> int:
        return len(self.candidate)

    def __repr__(self) -> str:
        rounds = sorted(set(self.round.tolist()))
        arms = len(set(zip(self.round.tolist(), self.candidate.tolist())))
        return f"Readings({len(self)} rows, {arms} arms, rounds {rounds})"

    @classmethod
    def from_frame(cls, frame: Any) -> Readings:
        """Tidy rows: ``round, candidate, metric, count, mean, var[, revision]``.

        Args:
            frame: pandas, Polars, PyArrow, DuckDB or whatever else Narwhals reads; lazy frames
                are collected. A mapping from column to values does as well.
        Raises:
            ReadingsError: columns are missing or unknown, or rows are refused.
        """
        if isinstance(frame, Mapping):
            return cls._from_columns(frame, lambda row: f"row {row}")
        try:
            table = nw.from_native(frame)
            names = table.collect_schema().names()
        except TypeError:
            raise ReadingsError(
                "from_frame expects a data frame that Narwhals reads (pandas, Polars, PyArrow, "
                f"DuckDB, ...) or a mapping of columns, got {type(frame).__name__}"
            ) from None
        except Exception as error:  # the engines have no common tree of errors
            raise ReadingsError(f"the frame cannot be read: {error}") from error
        unknown = [str(n) for n in names if n not in COLUMNS + OPTIONAL_COLUMNS]
        if unknown:  # before the values: a name may be none that the engine can look up
            return cls._from_columns(dict.fromkeys(names, ()), lambda row: f"row {row}")
        try:
            eager = table.collect() if isinstance(table, nw.LazyFrame) else table
            columns = {name: eager[name].to_list() for name in names}
        except Exception as error:
            raise ReadingsError(f"the frame cannot be read: {error}") from error
        return cls._from_columns(columns, lambda row: f"row {row}")

    @classmethod
    def from_file(cls, path: str | Path) -> Readings:
        """Tidy rows from ``.csv``, ``.jsonl`` / ``.ndjson`` or ``.parquet``.

        A text file must end with a newline: without one its last line may be half a line that
        still reads as a number, so it is refused as half-written.

        Raises:
            ReadingsError: no such file, half-written, not of its format, or rows are refused.
            MissingExtraError: Parquet without pyarrow.
        """
        try:
            path = Path(path)
        except TypeError:
            raise ReadingsError(f"expected the path of a file, got {path!r}") from None
        suffix = path.suffix.lower()
        if path.is_dir():
            raise ReadingsError(f"{str(path)!r} is a directory; name one readings file in it")
        if not path.is_file():
            raise ReadingsError(f"no readings file at {str(path)!r}")
        if suffix == ".parquet":
            return cls._from_columns(_read_parquet(path), lambda row: f"{path.name} row {row}")
        if suffix not in (".csv", ".jsonl", ".ndjson"):
            raise ReadingsError(
                f"{path.name}: unknown kind of file {suffix!r}; "
                "expected .csv, .jsonl, .ndjson or .parquet"
            )
        lines = _read_lines(path)
        columns, numbers = (_parse_csv if suffix == ".csv" else _parse_jsonl)(lines, path.name)
        return cls._from_columns(columns, lambda row: f"{path.name} line {numbers[row]}")

    @classmethod
    def _from_columns(
        cls, columns: Mapping[str, Sequence[Any]], where: Callable[[int], str]
    ) -> Readings:
        missing = [name for name in COLUMNS if name not in columns]
        unknown = [str(n) for n in columns if n not in COLUMNS + OPTIONAL_COLUMNS]
        if missing or unknown:
            raise ReadingsError(
                f"readings need the columns {list(COLUMNS)} and may have "
                f"{list(OPTIONAL_COLUMNS)}: missing {missing}, unknown {unknown}"
            )
        columns = {name: _column(name, values) for name, values in columns.items()}
        sizes = {name: len(values) for name, values in columns.items()}
        if len(set(sizes.values())) > 1:
            raise ReadingsError(f"columns must be of one length, got {sizes}")
        num = sizes["round"]
        self = cls.__new__(cls)
        raw = {name: _objects(columns[name]) for name in COLUMNS}
        revision = columns.get("revision", [0] * num)
        self._fill(**raw, revision=_objects(revision), where=where)
        return self

    def _fill(
        self,
        *,
        round: NDArray[Any],
        candidate: NDArray[Any],
        metric: NDArray[Any],
        count: NDArray[Any],
        mean: NDArray[Any],
        var: NDArray[Any],
        revision: NDArray[Any],
        where: Callable[[int], str],
    ) -> None:
        """Check every row, then become them; raises with all offending rows."""
        self.where = where
        faults = _Faults(where, len(candidate))
        if len(candidate) == 0:
            raise ReadingsError("the message holds no row; send at least one, or nothing")
        self.round = faults.whole("round", round)
        self.candidate = faults.whole("candidate", candidate)
        self.revision = faults.whole("revision", revision)
        self.metric = metric
        unnamed = all(isinstance(m, int | np.integer) and not isinstance(m, bool) for m in metric)
        faults.add(
            np.array([not (unnamed or (isinstance(m, str) and m.strip())) for m in metric]),
            lambda i: f"metric {metric[i]!r} is not a name",
        )
        self.count = faults.number("count", count)
        self.mean = faults.number("mean", mean, empty=self.count == 0)
        self.var = faults.number("var", var, empty=self.count == 0)
        with np.errstate(invalid="ignore"):
            faults.add(self.count < 0, lambda i: f"count {count[i]} is negative")
            faults.add(self.var < 0, lambda i: f"var {var[i]} is negative; a variance cannot be")
            faults.add(
                (self.candidate == 0) & (self.mean == 0) & (self.count > 0),
                lambda i: (
                    "the control's mean is 0, so no relative change exists; leave the "
                    "metric out of this round, or choose one whose base level is not 0"
                ),
            )
        keys = list(zip(self.round, self.candidate, metric.tolist(), self.revision))
        good = np.flatnonzero(~faults.bad).tolist()  # what is no key cannot stand twice
        first: dict[Any, int] = {}
        for i in good:
            first.setdefault(keys[i], i)
        if len(first) < len(good):
            twice = np.zeros(len(keys), dtype=bool)
            twice[good] = [first[keys[i]] != i for i in good]
            faults.add(
                twice,
                lambda i: (
                    f"round {keys[i][0]}, candidate {keys[i][1]}, metric {keys[i][2]!r} "
                    f"stands already at {where(first[keys[i]])}"
                ),
            )
        faults.throw("readings are refused, none was recorded:")

    @classmethod
    def concat(cls, messages: Sequence[Readings]) -> Readings:
        """Several messages as one, to be taken or refused together.

        Raises:
            ReadingsError: a row stands in two of them, or metrics are named in only some.
        """
        if len(messages) == 1:
            return messages[0]
        if len({isinstance(message.metric[0], str) for message in messages}) > 1:
            raise ReadingsError(
                "some messages name their metrics and some do not; name them in all: metrics=[...]"
            )
        starts = np.cumsum([0, *(len(message) for message in messages)])

        def where(row: int) -> str:
            part = int(np.searchsorted(starts, row, side="right")) - 1
            return f"message {part}, {messages[part].where(row - int(starts[part]))}"

        self = cls.__new__(cls)
        fields = ("round", "candidate", "metric", "count", "mean", "var", "revision")
        joined = {f: np.concatenate([getattr(m, f) for m in messages]) for f in fields}
        self._fill(**{f: v.astype(object) for f, v in joined.items()}, where=where)
        return self

    def metric_index(self, metrics: Sequence[str]) -> NDArray[np.int64]:
        """Each row's column in ``metrics``.

        Raises:
            ReadingsError: a name is unknown, or the unnamed columns are not all metrics.
        """
        index: dict[Any, int] = {name: i for i, name in enumerate(metrics)}
        if not isinstance(self.metric[0], str):
            width = int(max(self.metric)) + 1
            if width != len(metrics):
                raise ReadingsError(
                    f"mean and var must have one column for each of the {len(metrics)} metrics "
                    f"{list(metrics)}, got {width}; name the columns with metrics=[...] to send "
                    "fewer"
                )
            index = {i: i for i in range(width)}
        faults = _Faults(self.where, len(self))
        faults.add(
            np.array([m not in index for m in self.metric]),
            lambda i: f"unknown metric {self.metric[i]!r}; known metrics: {list(metrics)}",
        )
        faults.throw("readings are refused, none was recorded:")
        return np.array([index[m] for m in self.metric], dtype=np.int64)


class _Faults:
    """Collects offending rows by vectorised checks; only rows that are named cost anything."""

    def __init__(self, where: Callable[[int], str], num_rows: int) -> None:
        self.where = where
        self.bad = np.zeros(num_rows, dtype=bool)
        self.said: dict[int, str] = {}

    def add(self, mask: NDArray[np.bool_], say: Callable[[int], str]) -> None:
        mask = mask & ~self.bad  # one reason a row is enough
        for i in np.flatnonzero(mask)[:MAX_ROWS_NAMED].tolist():
            self.said[i] = f"{self.where(i)}: {say(i)}"
        self.bad |= mask

    def throw(self, summary: str) -> None:
        if self.bad.any():
            rows = [self.said[i] for i in sorted(self.said)[:MAX_ROWS_NAMED]]
            raise ReadingsError(summary, rows, int(self.bad.sum()))

    def number(
        self, name: str, raw: NDArray[Any], empty: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        values = np.array([_to_float(v) for v in raw], dtype=np.float64)
        finite = np.isfinite(values)
        if empty is not None:
            values, finite = np.where(empty, 0.0, values), finite | empty
        self.add(~finite, lambda i: f"{name} is {raw[i]!r}, expected a finite number")
        return values

    def whole(self, name: str, raw: NDArray[Any]) -> NDArray[np.int64]:
        values = np.array([_to_float(v) for v in raw], dtype=np.float64)
        with np.errstate(invalid="ignore"):
            good = np.isfinite(values) & (values == np.floor(values))
            good &= (values >= 0) & (values < _MAX_ID)
        self.add(~good, lambda i: f"{name} is {raw[i]!r}, expected a whole number >= 0")
        return np.where(good, values, 0.0).astype(np.int64)


def _to_float(value: Any) -> float:
    """A number, or NaN for all that is none: text such as '1_000' and True included."""
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, str | numbers.Real | Decimal):
        return float("nan")
    if isinstance(value, str) and "_" in value:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _array(values: Any, name: str) -> NDArray[Any]:
    try:
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu().resolve_conj().resolve_neg()
            # NumPy has no bfloat16; every float of torch is a double as well.
            values = values.double() if values.is_floating_point() else values
            return np.asarray(values.numpy())
        return np.asarray(values)
    except ValueError:
        raise ReadingsError(f"{name} is ragged; expected one value per arm and metric") from None
    except (TypeError, RuntimeError) as error:  # on the meta device, sparse, requires grad, ...
        raise ReadingsError(f"{name} holds no plain numbers: {error}") from None


def _scalar(value: Any, name: str) -> Any:
    array = _array(value, name)
    if array.ndim != 0:
        raise ReadingsError(f"{name} must be one whole number, got {value!r}")
    return array.item()


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    """One object per row, whatever it is; ``np.array`` would unpack lists into axes."""
    return np.fromiter(values, dtype=object, count=len(values))


def _column(name: str, values: Any) -> list[Any]:
    """The values of one column of a mapping, as plain Python values where it can tell them."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ReadingsError(
            f"column {name!r} must be a list of values, one per row, got {values!r}"
        )
    try:
        return list(values.tolist() if isinstance(values, torch.Tensor | np.ndarray) else values)
    except (TypeError, RuntimeError) as error:
        raise ReadingsError(f"column {name!r} cannot be read: {error}") from None


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadingsError(f"{path.name} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise ReadingsError(f"{path.name} cannot be read: {error}") from None
    if not text.strip():
        raise ReadingsError(f"{path.name} is empty; expected a header and rows")
    if not text.endswith("\n"):
        raise ReadingsError(
            f"{path.name} does not end with a newline, so it looks half-written; "
            "write it to another name first and rename it when it is complete"
        )
    return text.split("\n")[:-1]  # splitlines() would also cut at U+2028 within a name


def _parse_csv(lines: list[str], name: str) -> tuple[dict[str, list[Any]], list[int]]:
    # With the line ends: a quoted cell over two lines must not join into another number.
    reader = csv.reader((line + "\n" for line in lines), strict=True)
    try:
        header = [cell.strip() for cell in next(reader)]
        if len(set(header)) < len(header):
            raise ReadingsError(f"{name}: the header names a column twice: {header}")
        rows: list[list[str]] = []
        numbers: list[int] = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ReadingsError(
                    f"{name} line {reader.line_num}: {len(row)} cells under a header of "
                    f"{len(header)}; the file looks half-written or uses another separator"
                )
            rows.append([cell.strip() for cell in row])
            numbers.append(reader.line_num)
    except csv.Error as error:
        raise ReadingsError(f"{name} line {reader.line_num}: not CSV: {error}") from None
    return {column: [row[i] for row in rows] for i, column in enumerate(header)}, numbers


def _parse_jsonl(lines: Iterable[str], name: str) -> tuple[dict[str, list[Any]], list[int]]:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ReadingsError(
                f"{name} line {number}: not a JSON object, the file looks half-written: {error}"
            ) from None
        if not isinstance(row, dict):
            raise ReadingsError(f"{name} line {number}: expected a JSON object, got {line[:60]!r}")
        if rows and row.keys() != rows[0].keys():
            raise ReadingsError(
                f"{name} line {number}: keys {sorted(row)} differ from line {numbers[0]}'s "
                f"{sorted(rows[0])}"
            )
        rows.append(row)
        numbers.append(number)
    return {column: [row[column] for row in rows] for column in rows[0]}, numbers


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("reading Parquet", "pyarrow", "parquet") from None
    try:
        # As one file: a path such as day=3/x.parquet must not grow columns from its folders.
        with pq.ParquetFile(path) as file:
            columns: dict[str, list[Any]] = file.read().to_pydict()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ReadingsError(f"{path.name} is not a complete Parquet file: {error}") from None
    return columns
