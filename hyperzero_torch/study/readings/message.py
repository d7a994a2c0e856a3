"""A message of readings, from dense tensors, a tidy frame or a file, as checked tidy rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import narwhals as nw
import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import ReadingsError
from .checks import Faults, as_array, as_column, as_objects, as_scalar, is_undefined
from .columns import renamed
from .files import read_file, read_stream

COLUMNS = ("round", "candidate", "metric", "count", "mean", "var")
OPTIONAL_COLUMNS = ("revision",)
_FIELDS = COLUMNS + OPTIONAL_COLUMNS


class Readings:
    """A message of readings, as checked tidy rows.

    Args:
        round: the round in which the arms were served.
        candidate_ids: ``(arms,)``; 0 is the control.
        count: users, ``(arms,)`` or ``(arms, metrics)``; a row with count 0 has no effect. One
            user has no sample variance: a row with count 1 is accepted with ``var`` NULL, NaN or
            infinite, and is no evidence.
        mean: sample mean of the users' values, ``(arms,)`` for one metric or
            ``(arms, metrics)``, in the metric's unit.
        var: sample variance of the users' values, same shape as ``mean``.
        metrics: names of the columns; by default all metrics of the problem in their order.
        revision: a higher revision of a row replaces earlier ones.
    Raises:
        ReadingsError: wrong shapes, NaN, infinity, a negative count or variance, or a duplicate
            row; every faulty row is named, up to a limit.
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
        round_, revision_ = as_scalar(round, "round"), as_scalar(revision, "revision")
        ids = as_array(candidate_ids, "candidate_ids")
        mean_, var_, count_ = as_array(mean, "mean"), as_array(var, "var"), as_array(count, "count")
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
        count_ = count_[:, None] if count_.ndim == 1 else count_
        columns = {
            "round": np.full(arms * width, round_, dtype=object),
            "candidate": np.repeat(ids, width),
            "metric": np.tile(as_objects(names), arms),
            "count": np.broadcast_to(count_, (arms, width)).reshape(-1),
            "mean": mean_.reshape(-1),
            "var": var_.reshape(-1),
            "revision": np.full(arms * width, revision_, dtype=object),
        }
        self._fill(columns, lambda row: f"arm {row // width}")

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
            frame: of pandas, Polars, PyArrow, DuckDB or another library that Narwhals reads;
                lazy frames are collected. A mapping from column to values is accepted too.
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
        except Exception as error:  # the engines have no common base of errors
            raise ReadingsError(f"the frame cannot be read: {error}") from error
        unknown = [str(n) for n in names if n not in COLUMNS + OPTIONAL_COLUMNS]
        if unknown:  # before reading values: the engine may not be able to look up such a name
            return cls._from_columns(dict.fromkeys(names, ()), lambda row: f"row {row}")
        try:
            eager = table.collect() if isinstance(table, nw.LazyFrame) else table
            columns = {name: eager[name].to_list() for name in names}
        except Exception as error:
            raise ReadingsError(f"the frame cannot be read: {error}") from error
        return cls._from_columns(columns, lambda row: f"row {row}")

    @classmethod
    def from_file(cls, path: str | Path, columns: Mapping[str, str] | None = None) -> Readings:
        """Tidy rows from ``.csv``, ``.jsonl`` / ``.ndjson`` (also with ``.gz``) or ``.parquet``.

        A text file must end with a newline. Otherwise its last line may be cut within a number, so
        the file is refused as incomplete.

        Args:
            path: the file.
            columns: our name of a column to the file's, e.g. ``{"round": "hour"}``.
        Raises:
            ReadingsError: no such file, it is incomplete or not of its format, or rows are refused.
            MissingExtraError: Parquet without pyarrow.
        """
        try:
            path = Path(path)
        except TypeError:
            raise ReadingsError(f"expected the path of a file, got {path!r}") from None
        rows, where = read_file(path)
        return cls._from_columns(renamed(rows, columns or {}, path.name), where)

    @classmethod
    def from_stream(
        cls,
        stream: BinaryIO,
        columns: Mapping[str, str] | None = None,
        name: str = "standard input",
    ) -> Readings:
        """Tidy rows from a binary stream, such as ``sys.stdin.buffer``, read to its end.

        CSV, JSON lines or Parquet, packed by gzip or not; the first bytes show which.

        Args:
            stream: of bytes.
            columns: our name of a column to the stream's, e.g. ``{"round": "hour"}``.
            name: for error messages.
        Raises:
            ReadingsError: it is incomplete or not of a known format, or rows are refused.
            MissingExtraError: Parquet without pyarrow.
        """
        rows, where = read_stream(stream, name)
        return cls._from_columns(renamed(rows, columns or {}, name), where)

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
        rows = {name: as_column(name, values) for name, values in columns.items()}
        sizes = {name: len(values) for name, values in rows.items()}
        if len(set(sizes.values())) > 1:
            raise ReadingsError(f"columns must be of one length, got {sizes}")
        rows.setdefault("revision", [0] * sizes["round"])
        return cls._of({name: as_objects(rows[name]) for name in _FIELDS}, where)

    @classmethod
    def _of(cls, columns: Mapping[str, NDArray[Any]], where: Callable[[int], str]) -> Readings:
        self = cls.__new__(cls)
        self._fill(columns, where)
        return self

    def _fill(self, columns: Mapping[str, NDArray[Any]], where: Callable[[int], str]) -> None:
        """Check every row and store the columns; raises with all faulty rows."""
        self.where = where
        metric, count, var = columns["metric"], columns["count"], columns["var"]
        faults = Faults(where, len(metric))
        if len(metric) == 0:
            raise ReadingsError("the message holds no row; send at least one, or nothing")
        self.round = faults.whole("round", columns["round"])
        self.candidate = faults.whole("candidate", columns["candidate"])
        self.revision = faults.whole("revision", columns["revision"])
        self.metric = metric
        unnamed = all(isinstance(m, int | np.integer) and not isinstance(m, bool) for m in metric)
        faults.add(
            np.array([not (unnamed or (isinstance(m, str) and m.strip())) for m in metric]),
            lambda i: f"metric {metric[i]!r} is not a name",
        )
        self.count = faults.number("count", count)
        is_empty = self.count == 0
        self.mean = faults.number("mean", columns["mean"], empty=is_empty)
        # One user has no sample variance. Such a row is counted, and is no evidence.
        has_no_var = is_empty.copy()
        for i in np.flatnonzero((self.count > 0) & (self.count <= 1)).tolist():
            has_no_var[i] = is_undefined(var[i])
        self.var = faults.number("var", var, empty=has_no_var)
        with np.errstate(invalid="ignore"):
            faults.add(self.count < 0, lambda i: f"count {count[i]} is negative")
            faults.add(self.var < 0, lambda i: f"var {var[i]} is negative; a variance cannot be")
        keys = list(zip(self.round, self.candidate, metric.tolist(), self.revision))
        good = np.flatnonzero(~faults.bad).tolist()  # faulty rows have no key
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
        """Several messages as one, to be recorded or refused together.

        Raises:
            ReadingsError: two messages have the same row, or only some name their metrics.
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

        joined = {f: np.concatenate([getattr(m, f) for m in messages]) for f in _FIELDS}
        return cls._of({f: values.astype(object) for f, values in joined.items()}, where)

    def by_round(self) -> dict[int, Readings]:
        """The same rows as one message per round, ascending."""
        return {r: self.only(self.round == r) for r in np.unique(self.round).tolist()}

    def only(self, rows: NDArray[np.bool_]) -> Readings:
        """The rows where the mask is true, at least one, as a message."""
        at = np.flatnonzero(rows)
        columns = {f: getattr(self, f)[at].astype(object) for f in _FIELDS}
        places = at.tolist()
        return self._of(columns, lambda row: self.where(places[row]))

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
        faults = Faults(self.where, len(self))
        faults.add(
            np.array([m not in index for m in self.metric]),
            lambda i: f"unknown metric {self.metric[i]!r}; known metrics: {list(metrics)}",
        )
        faults.throw("readings are refused, none was recorded:")
        return np.array([index[m] for m in self.metric], dtype=np.int64)
