"""Files of tidy rows to columns: CSV, JSON lines and Parquet. Incomplete files are refused."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import MissingExtraError, ReadingsError

Columns = tuple[dict[str, list[Any]], Callable[[int], str]]

_TEXTS = (".csv", ".jsonl", ".ndjson")
_GZIP = b"\x1f\x8b"


def read_file(path: Path) -> Columns:
    """The columns of a file, and the name of each row for error messages.

    Raises:
        ReadingsError: no such file, or it is incomplete or not of its format.
        MissingExtraError: Parquet without pyarrow.
    """
    name = path.name.lower()
    is_packed = name.endswith(".gz")
    suffix = Path(name.removesuffix(".gz")).suffix
    if path.is_dir():
        raise ReadingsError(f"{str(path)!r} is a directory; name one readings file in it")
    if not path.is_file():
        raise ReadingsError(f"no readings file at {str(path)!r}")
    if suffix == ".parquet" and not is_packed:
        return _read_parquet(path, path.name), lambda row: f"{path.name} row {row}"
    if suffix not in _TEXTS:
        raise ReadingsError(
            f"{path.name}: unknown kind of file {path.suffix!r}; "
            "expected .csv, .jsonl or .ndjson, each also with .gz, or .parquet"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReadingsError(f"{path.name} cannot be read: {error}") from None
    return _read_text(_unpacked(data, path.name) if is_packed else data, path.name, suffix)


def read_stream(stream: BinaryIO, name: str) -> Columns:
    """As ``read_file``, for a stream: CSV, JSON lines or Parquet, packed by gzip or not.

    The kind is seen from the first bytes: a JSON line begins with a brace.

    Raises:
        ReadingsError: it is incomplete or not of a known format.
        MissingExtraError: Parquet without pyarrow.
    """
    try:
        data = stream.read()
    except OSError as error:
        raise ReadingsError(f"{name} cannot be read: {error}") from None
    if data.startswith(_GZIP):
        data = _unpacked(data, name)
    if data.startswith(b"PAR1"):
        return _read_parquet(io.BytesIO(data), name), lambda row: f"{name} row {row}"
    is_json = data.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
    return _read_text(data, name, ".jsonl" if is_json else ".csv")


def _read_text(data: bytes, name: str, suffix: str) -> Columns:
    parse = _parse_csv if suffix == ".csv" else _parse_jsonl
    columns, numbers = parse(_lines(data, name), name)
    return columns, lambda row: f"{name} line {numbers[row]}"


def _unpacked(data: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(data)
    except EOFError:
        raise ReadingsError(
            f"{name} ends within its gzip data, so it looks half-written; "
            "write it to another name first and rename it when it is complete"
        ) from None
    except (OSError, zlib.error) as error:
        raise ReadingsError(f"{name} is not packed by gzip: {error}") from None


def _lines(data: bytes, name: str) -> list[str]:
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ReadingsError(f"{name} is not UTF-8 text: {error}") from None
    if not text.strip():
        raise ReadingsError(f"{name} is empty; expected a header and rows")
    if not text.endswith("\n"):
        raise ReadingsError(
            f"{name} does not end with a newline, so it looks half-written; "
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


def _read_parquet(source: Path | BinaryIO, name: str) -> dict[str, list[Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("reading Parquet", "pyarrow", "parquet") from None
    try:
        # As a single file: a dataset would add columns from folder names such as day=3.
        with pq.ParquetFile(source) as file:
            columns: dict[str, list[Any]] = file.read().to_pydict()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ReadingsError(f"{name} is not a complete Parquet file: {error}") from None
    return columns
