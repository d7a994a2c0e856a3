"""Parquet files of one table, possibly of several schemas; a file that cannot be used is left out.

Columns are matched by name. A file that is torn, that lacks a column that is needed, or whose
columns are of another type, is named, and all other files are read. An optional column that a file
lacks is null in its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import ReadingsError

#: What is wrong with the columns of a relation, or None.
Check = Callable[[Any], "str | None"]
_MAX_REASON = 200


def open_files(
    connection: Any,
    name: str,
    patterns: Sequence[str],
    columns: Sequence[str],
    flaw_of: Check,
    read_all: bool = False,
) -> tuple[Any, dict[str, int]]:
    """A relation over the files, and the files left out, each with its reason.

    Args:
        connection: of DuckDB.
        name: of the table, for messages.
        patterns: paths or globs.
        columns: those that are used, where a file has them.
        flaw_of: what is wrong with the columns of a file.
        read_all: read every file to its end first. A file can be damaged in the middle, which its
            footer does not tell.
    Raises:
        ReadingsError: no file can be used.
    """
    import duckdb

    try:
        files = [f for p in patterns for (f,) in _rows(connection, "SELECT file FROM glob(?)", p)]
        files = list(dict.fromkeys(files)) or list(patterns)
        if not read_all:
            relation = connection.read_parquet(files, union_by_name=True)
            is_usable = len(files) == 1 or flaw_of(relation) is None
            # What one file lacks, the others make up for in the schema of them all.
            if is_usable and (len(files) == 1 or _are_alike(connection, files, columns)):
                return relation, {}
    except duckdb.Error as error:
        if len(patterns) == len(files) == 1 and not read_all:
            raise _unreadable(name, patterns, error) from error
    usable, faults, first = [], {}, None
    for file in files:
        try:
            relation = connection.read_parquet(file)
            reason = flaw_of(_with_types(relation))
            if reason is None and read_all:
                present = [c for c in columns if c in relation.columns]
                relation.aggregate(f"bit_xor(hash({', '.join(map(_quoted, present))}))").fetchall()
        except duckdb.Error as error:
            reason, first = str(error), first or error
        if reason is None:
            usable.append(file)
        else:
            faults[f"file {file} of the {name} cannot be used: {_shortened(reason)}"] = 1
    if not usable:
        raise _unreadable(name, patterns, first or "; ".join(faults)) from first
    return _joined(connection, usable, columns, flaw_of), faults


def _with_types(relation: Any) -> Any:
    """A relation whose columns of nulls alone have the types that they have beside other files."""
    parts = []
    for column, kind in zip(relation.columns, relation.types):
        name = _quoted(column)
        if str(kind).strip('"').upper() == "NULL":
            is_text = column in ("user", "metric", "study", "epoch")
            to = "VARCHAR" if is_text else "BIGINT"
            name = f"CAST({name} AS {to}) AS {name}"
        parts.append(name)
    return relation.project(", ".join(parts))


def _joined(connection: Any, files: list[str], columns: Sequence[str], flaw_of: Check) -> Any:
    """Files that are usable one by one, as one relation."""
    import duckdb

    try:
        relation = connection.read_parquet(files, union_by_name=True)
        if flaw_of(relation) is None:
            return relation
    except duckdb.Error:
        pass  # a column that is not used may have types that do not fit together
    parts = []
    for file in files:
        present = [c for c in columns if c in connection.read_parquet(file).columns]
        path = file.replace("'", "''")
        parts.append(f"SELECT {', '.join(map(_quoted, present))} FROM read_parquet('{path}')")
    return connection.sql(" UNION ALL BY NAME ".join(parts))


def _are_alike(connection: Any, files: list[str], columns: Sequence[str]) -> bool:
    """Whether all files have the same of these columns."""
    query = """
        SELECT count(DISTINCT present) FROM (
            SELECT list_sort(list(name) FILTER (list_contains(?, name))) AS present
            FROM parquet_schema(?) GROUP BY file_name
        )
    """
    (number,) = connection.execute(query, [list(columns), files]).fetchone()
    return bool(number == 1)


def _rows(connection: Any, query: str, parameter: str) -> list[Any]:
    rows: list[Any] = connection.execute(query, [parameter]).fetchall()
    return rows


def _unreadable(name: str, patterns: Sequence[str], why: object) -> ReadingsError:
    return ReadingsError(f"{name}: {list(patterns)} cannot be read as Parquet: {why}")


def _quoted(column: str) -> str:
    return f'"{column}"'


def _shortened(reason: str) -> str:
    return " ".join(reason.split())[:_MAX_REASON]
