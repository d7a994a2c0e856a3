"""Files of tidy rows to columns: CSV, JSON lines and Parquet. Incomplete files are refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ...errors import MissingExtraError, ReadingsError


def read_file(path: Path) -> tuple[dict[str, list[Any]], Callable[[int], str]]:
    """The columns of a file, and the name of each row for error messages.

    Raises:
        ReadingsError: no such file, or it is incomplete or not of its format.
        MissingExtraError: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise ReadingsError(f"{str(path)!r} is a directory; name one readings file in it")
    if not path.is_file():
        raise ReadingsError(f"no readings file at {str(path)!r}")
    if suffix == ".parquet":
        return _read_parquet(path), lambda row: f"{path.name} row {row}"
    if suffix not in (".csv", ".jsonl", ".ndjson"):
        raise ReadingsError(
            f"{path.name}: unknown kind of file {suffix!r}; "
            "expected .csv, .jsonl, .ndjson or .parquet"
        )
    parse = _parse_csv if suffix == ".csv" else _parse_jsonl
    columns, numbers = parse(_read_lines(path), path.name)
    return columns, lambda row: f"{path.name} line {numbers[row]}"


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
    return text.split("\n")[:-1]  # splitlines() would also split at U+2028 within a name


def _parse_csv(lines: list[str], name: str) -> tuple[dict[str, list[Any]], list[int]]:
    # Keep line ends, so that a quoted cell over two lines does not join into another number.
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
        # As a single file: a dataset would add columns from folder names such as day=3.
        with pq.ParquetFile(path) as file:
            columns: dict[str, list[Any]] = file.read().to_pydict()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ReadingsError(f"{path.name} is not a complete Parquet file: {error}") from None
    return columns
