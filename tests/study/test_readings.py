"""``readings.py``: the same rows from every door, and no door for a wrong number."""

import csv
import io
import json
import math
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperzero_torch.errors import InputError, ReadingsError
from hyperzero_torch.study.readings import COLUMNS, MAX_ROWS_NAMED, Readings

law = settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

METRICS = ["views", "watch,time", "größe"]
TABLE = {
    "round": [4] * 6,
    "candidate": [0, 0, 7, 7, 12, 12],
    "metric": ["views", "watch,time", "views", "watch,time", "views", "größe"],
    "count": [1000, 1000, 250, 250, 251, 251],
    "mean": [3.25, 0.125, 3.5, -0.25, 0.0, 1e-3],
    "var": [1.5, 0.0, 1.25, 2.5, 123.456, 7e-9],
    "revision": [0, 0, 0, 1, 2, 0],
}
FIELDS = (*COLUMNS, "revision")


def table(**changes):
    return {name: list(values) for name, values in TABLE.items()} | changes


def without(*names, **changes):
    return {k: v for k, v in table(**changes).items() if k not in names}


def rows(readings):
    return list(zip(*(getattr(readings, name).tolist() for name in FIELDS)))


EXPECTED = list(zip(*(TABLE[name] for name in FIELDS)))


def refused(make, reason=".", num_rows=None):
    with pytest.raises(ReadingsError, match=reason) as caught:
        make()
    assert isinstance(caught.value, InputError)
    if num_rows is not None:
        assert caught.value.num_rows == num_rows
    return caught.value


def dense(**changes):
    given_ = {
        "round": 4,
        "candidate_ids": [0, 7, 12],
        "count": [10, 20, 30],
        "mean": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        "var": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]],
    }
    return Readings(**(given_ | changes))


# --- the dense constructor --------------------------------------------------------------------


def test_dense_arms_by_metrics_become_tidy_rows():
    readings = dense(metrics=["a", "b"], revision=3)
    assert rows(readings) == [
        (4, 0, "a", 10, 1.0, 0.1, 3),
        (4, 0, "b", 10, 2.0, 0.2, 3),
        (4, 7, "a", 20, 3.0, 0.3, 3),
        (4, 7, "b", 20, 4.0, 0.4, 3),
        (4, 12, "a", 30, 5.0, 0.5, 3),
        (4, 12, "b", 30, 6.0, 0.6, 3),
    ]
    assert len(readings) == 6
    assert repr(readings) == "Readings(6 rows, 3 arms, rounds [4])"


def test_dense_arms_are_one_metric():
    readings = dense(mean=[1.0, 2.0, 3.0], var=[0.0, 0.1, 0.2])
    assert rows(readings) == [
        (4, 0, 0, 10, 1.0, 0.0, 0),
        (4, 7, 0, 20, 2.0, 0.1, 0),
        (4, 12, 0, 30, 3.0, 0.2, 0),
    ]
    assert readings.metric_index(["anything"]).tolist() == [0, 0, 0]


def test_counts_may_differ_between_metrics():
    readings = dense(count=[[1, 2], [3, 4], [5, 6]])
    assert readings.count.tolist() == [1, 2, 3, 4, 5, 6]
    assert readings.metric_index(["a", "b"]).tolist() == [0, 1] * 3


@pytest.mark.parametrize(
    "form",
    [
        np.array,
        torch.tensor,
        lambda v: torch.tensor(v, dtype=torch.float32),
        lambda v: torch.tensor(v).to(torch.bfloat16),
        lambda v: torch.tensor(v, dtype=torch.float64, requires_grad=True),
        lambda v: [[torch.tensor(x) for x in row] for row in v],
        lambda v: tuple(map(tuple, v)),
        lambda v: pd.DataFrame(v),
    ],
)
def test_dense_takes_arrays_tensors_and_lists(form):
    values = [[1.0, 2.0], [3.0, 4.0], [5.0, 0.5]]  # exact in bfloat16
    readings = dense(mean=form(values), var=form(values), candidate_ids=torch.tensor([0, 7, 12]))
    assert readings.mean.tolist() == readings.var.tolist() == [x for row in values for x in row]
    assert readings.mean.dtype == readings.count.dtype == np.float64
    assert readings.candidate.dtype == readings.round.dtype == np.int64


def test_readings_do_not_share_memory_with_what_came_in():
    mean = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    ids = np.array([0, 7, 12])
    readings = dense(mean=mean, candidate_ids=ids)
    mean[:], ids[:] = 99.0, 99
    assert readings.mean.tolist() == [1, 2, 3, 4, 5, 6]
    assert readings.candidate.tolist() == [0, 0, 7, 7, 12, 12]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mean": [1.0, 2.0]}, r"mean and var \(arms,\) or \(arms, metrics\), got \(3,\), \(2,\)"),
        ({"mean": [1.0, 2.0], "var": [1.0, 2.0]}, r"\(arms,\)"),
        ({"var": [0.1, 0.2, 0.3]}, r"\(3, 2\) and \(3,\)"),
        ({"mean": 1.0, "var": 1.0}, r"got \(3,\), \(\)"),
        ({"mean": np.ones((3, 2, 1)), "var": np.ones((3, 2, 1))}, r"\(3, 2, 1\)"),
        ({"candidate_ids": 0}, "candidate_ids must be"),
        ({"candidate_ids": [[0], [7], [12]]}, "candidate_ids must be"),
        ({"candidate_ids": {0, 7, 12}}, "candidate_ids must be"),
        ({"count": 10}, r"count must be \(3,\) or \(3, 2\) like mean, got \(\)"),
        ({"count": [1, 2]}, r"got \(2,\)"),
        ({"count": np.ones((3, 3))}, r"got \(3, 3\)"),
        ({"count": np.ones((3, 1))}, r"got \(3, 1\)"),
        ({"mean": [[1.0, 2.0], [3.0], [5.0, 6.0]]}, "mean is ragged"),
        ({"count": [[1, 2], [3, 4], 5]}, "count is ragged"),
        ({"metrics": ["a"]}, "names 1 columns, mean has 2"),
        ({"metrics": ["a", "b", "c"]}, "names 3 columns"),
        ({"metrics": "ab"}, "list of names, got 'ab'"),
        ({"metrics": 2}, "list of names, got 2"),
        ({"metrics": ["a", ["b"]]}, r"metric \['b'\] is not a name"),
        ({"metrics": ["a", ""]}, "metric '' is not a name"),
        ({"metrics": ["a", None]}, "metric None is not a name"),
        ({"metrics": ["a", 1]}, "metric 1 is not a name"),
        ({"metrics": ["a", "a"]}, "stands already at arm 0"),
        ({"mean": np.ones((3, 2)) * 1j}, "expected a finite number"),
        ({"mean": torch.ones(3, 2, device="meta")}, "mean holds no plain numbers"),
        ({"mean": torch.ones(3, 2).to_sparse()}, "mean holds no plain numbers"),
        ({"mean": np.zeros((3, 0)), "var": np.zeros((3, 0))}, "no row"),
        ({"candidate_ids": [], "count": [], "mean": [], "var": []}, "no row"),
        ({"round": [4, 4, 4]}, r"round must be one whole number, got \[4, 4, 4\]"),
        ({"revision": [0, 1]}, "revision must be one whole number"),
    ],
)
def test_dense_shapes_that_do_not_fit(changes, reason):
    refused(lambda: dense(**changes), reason)


@pytest.mark.parametrize("name", ["round", "revision"])
@pytest.mark.parametrize("value", [-1, 1.5, math.nan, math.inf, None, True, "x", 2**53, 10**400])
def test_dense_rounds_and_revisions_that_are_none(name, value):
    error = refused(lambda: dense(**{name: value}), f"arm 0: {name} is ", num_rows=6)
    assert "expected a whole number >= 0" in str(error)


@pytest.mark.parametrize("form", [int, np.int64, np.float64, torch.tensor, np.array])
def test_dense_rounds_in_any_scalar_form(form):
    assert dense(round=form(5)).round.tolist() == [5] * 6


# --- tidy tables ------------------------------------------------------------------------------


def tensor(values):
    return torch.tensor(values, dtype=torch.float64 if isinstance(values[0], float) else None)


FRAMES = {
    "dict": lambda t: t,
    "dict of arrays": lambda t: {k: np.array(v) for k, v in t.items()},
    "dict of series": lambda t: {k: pd.Series(v) for k, v in t.items()},
    "dict of tensors": lambda t: {k: v if k == "metric" else tensor(v) for k, v in t.items()},
    "pandas": pd.DataFrame,
    "pandas with an index": lambda t: pd.DataFrame(t, index=list("zyxwvu")),
    "polars": pl.DataFrame,
    "polars lazy": pl.LazyFrame,
    "arrow": pa.table,
    "shuffled columns": lambda t: pl.DataFrame(t).select(sorted(t)),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_every_frame_gives_the_same_rows(kind):
    readings = Readings.from_frame(FRAMES[kind](table()))
    assert rows(readings) == EXPECTED
    plain = Readings.from_frame(FRAMES[kind](without("revision")))
    assert plain.revision.tolist() == [0] * 6


def write(path, columns, newline="\n"):
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
        return
    lines = list(zip(*columns.values()))
    out = io.StringIO()
    if path.suffix == ".csv":
        writer = csv.writer(out, lineterminator=newline)
        writer.writerow(columns)
        writer.writerows(lines)
    else:
        for line in lines:
            out.write(json.dumps(dict(zip(columns, line)), ensure_ascii=False) + newline)
    path.write_bytes(out.getvalue().encode())


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".ndjson", ".parquet", ".CSV", ".Parquet"])
def test_every_file_gives_the_same_rows(tmp_path, suffix, newline):
    path = tmp_path / f"r{suffix.lower()}"
    write(path, table(), newline)
    path = path.rename(tmp_path / f"readings{suffix}")
    assert rows(Readings.from_file(path)) == EXPECTED
    assert rows(Readings.from_file(str(path))) == EXPECTED


def test_a_csv_may_have_a_mark_blanks_and_empty_lines(tmp_path):
    path = tmp_path / "r.csv"
    text = "round, candidate,metric ,count,mean,var\n\n1, 0 , v,10,2.5, 1e-1\n\n1,3,v,5,2,0\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    readings = Readings.from_file(path)
    assert rows(readings) == [(1, 0, "v", 10, 2.5, 0.1, 0), (1, 3, "v", 5, 2, 0, 0)]


@pytest.mark.parametrize("odd", ["a\u2028b", "a\x85b", "a\x1cb", "a\x0cb", 'a"b', "a;b", "a\tb"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_odd_signs_in_a_name_are_no_line_ends(tmp_path, odd, suffix):
    path = tmp_path / f"r{suffix}"
    write(path, table(metric=[odd, "b"] * 3))
    assert Readings.from_file(path).metric.tolist() == [odd, "b"] * 3


def test_the_folder_of_a_parquet_file_adds_no_columns(tmp_path):
    path = tmp_path / "revision=9" / "r.parquet"
    path.parent.mkdir()
    write(path, without("revision"))
    assert Readings.from_file(path).revision.tolist() == [0] * 6


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**53 - 1),
            st.integers(0, 2**53 - 1),
            st.text("abz ,\"'ß\u2028\n", min_size=1, max_size=5).map(lambda t: f"m{t}m"),
            st.integers(1, 2**60),
            st.floats(allow_nan=False, allow_infinity=False).filter(bool),
            st.floats(0, 1e308),
            st.integers(0, 99),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda row: (row[0], row[1], row[2], row[6]),
    )
)
@law
def test_numbers_survive_every_door_bit_for_bit(tmp_path, lines):
    columns = dict(zip(FIELDS, map(list, zip(*lines))))
    expected = [tuple(map(float, line[3:6])) for line in lines]
    ids = [(*line[:3], line[6]) for line in lines]
    doors = [Readings.from_frame(columns), Readings.from_frame(pl.DataFrame(columns))]
    for suffix in (".csv", ".jsonl", ".parquet"):
        path = tmp_path / f"r{suffix}"
        write(path, columns)
        doors.append(Readings.from_file(path))
    for readings in doors:
        got = [row[3:6] for row in rows(readings)]
        assert got == expected
        assert [(*row[:3], row[6]) for row in rows(readings)] == ids


# --- refused rows -----------------------------------------------------------------------------

BAD_CELLS = [
    ("count", math.nan, "count is nan"),
    ("mean", math.nan, "mean is nan, expected a finite number"),
    ("var", math.nan, "var is nan"),
    ("count", math.inf, "count is inf"),
    ("mean", -math.inf, "mean is -inf"),
    ("var", math.inf, "var is inf"),
    ("mean", None, "mean is None"),
    ("mean", 10**400, "mean is 1000"),
    ("mean", "three", "mean is 'three'"),
    ("mean", "1_000", "mean is '1_000'"),
    ("mean", "1,5", "mean is '1,5'"),
    ("mean", "", "mean is ''"),
    ("mean", "nan", "mean is 'nan'"),
    ("mean", "-Infinity", "mean is '-Infinity'"),
    ("mean", True, "mean is True"),
    ("mean", np.bool_(False), "mean is np.False_"),
    ("mean", 1j, "mean is 1j"),
    ("mean", np.complex128(1), "mean is np.complex128"),
    ("mean", b"1", "mean is b'1'"),
    ("mean", [1.0], r"mean is \[1.0\]"),
    ("mean", np.array([1.0]), r"mean is array\(\[1.\]\)"),
    ("mean", {}, "mean is {}"),
    ("mean", pd.NA, "mean is <NA>"),
    ("mean", pd.Timedelta(5), "mean is Timedelta"),
    ("mean", np.timedelta64(5, "s"), "mean is np.timedelta64"),
    ("count", -1, "count -1 is negative"),
    ("count", -0.5, "count -0.5 is negative"),
    ("var", -1e-9, "var -1e-09 is negative; a variance cannot be"),
    ("candidate", "seven", "candidate is 'seven', expected a whole number"),
    ("candidate", 1.5, "candidate is 1.5, expected a whole number"),
    ("candidate", "1.5", "candidate is '1.5'"),
    ("candidate", -1, "candidate is -1"),
    ("candidate", True, "candidate is True"),
    ("candidate", 2**53, "candidate is 9007199254740992"),
    ("candidate", 10**30, "candidate is 1000"),
    ("candidate", math.nan, "candidate is nan"),
    ("candidate", None, "candidate is None"),
    ("round", -1, "round is -1"),
    ("round", 0.5, "round is 0.5"),
    ("round", pd.Timestamp(0), "round is Timestamp"),
    ("revision", -1, "revision is -1"),
    ("revision", None, "revision is None"),
    ("metric", "", "metric '' is not a name"),
    ("metric", "  ", "metric '  ' is not a name"),
    ("metric", None, "metric None is not a name"),
    ("metric", math.nan, "metric nan is not a name"),
    ("metric", 3, "metric 3 is not a name"),
    ("metric", True, "metric True is not a name"),
    ("metric", ["views"], r"metric \['views'\] is not a name"),
    ("metric", {"a": 1}, "metric {'a': 1} is not a name"),
]


@pytest.mark.parametrize(("column", "value", "reason"), BAD_CELLS)
def test_a_bad_cell_is_refused_and_its_row_named(column, value, reason):
    changed = table()
    changed[column][3] = value
    error = refused(
        lambda: Readings.from_frame(changed), f"(?s)refused, none was.*row 3: {reason}", num_rows=1
    )
    assert len(error.rows) == 1


def test_a_mean_of_zero_is_a_reading_the_controls_too():
    """An hour without a conversion says how rare they are; leaving it out would select."""
    changed = table()
    changed["mean"][1] = -0.0
    assert Readings.from_frame(changed).mean[1] == 0
    assert 0.0 in TABLE["mean"]


def test_the_same_row_twice_names_both():
    double = {k: v + v[2:3] for k, v in table().items()}
    refused(
        lambda: Readings.from_frame(double),
        "row 6: round 4, candidate 7, metric 'views' stands already at row 2",
        num_rows=1,
    )
    refused(lambda: dense(candidate_ids=[0, 7, 7]), "arm 2: .* stands already at arm 1", 2)
    double["revision"][6] += 1  # another revision is another row
    assert len(Readings.from_frame(double)) == 7


def test_rows_that_are_bad_themselves_do_not_make_others_double():
    # What cannot be read must not count as a 0 that stands twice.
    changed = table(round=[0] * 6, candidate=["x", 0, 0, 7, 7, 12])
    changed["metric"] = ["views", "a", "views", "a", "views", "a"]
    error = refused(lambda: Readings.from_frame(changed), num_rows=1)
    assert error.rows == ("row 0: candidate is 'x', expected a whole number >= 0",)


def test_rows_are_named_up_to_a_limit_and_the_rest_counted():
    num = 500
    columns = {
        "round": [1] * num,
        "candidate": list(range(1, num + 1)),
        "metric": ["views"] * num,
        "count": [-1 if i >= 400 else 1 for i in range(num)],
        "mean": [math.nan if 100 <= i < 120 else 1.0 for i in range(num)],
        "var": [-1.0 if i in (3, 105) else 1.0 for i in range(num)],
    }
    error = refused(lambda: Readings.from_frame(columns), num_rows=121)
    assert len(error.rows) == MAX_ROWS_NAMED
    places = [int(row.split(":")[0].removeprefix("row ")) for row in error.rows]
    assert places == [3, *range(100, 109)]  # the first rows of the table, whatever their fault
    assert str(error).endswith(f"... and {121 - MAX_ROWS_NAMED} more")


def test_one_row_with_many_faults_counts_once():
    changed = table()
    for name in ("count", "mean", "var", "candidate"):
        changed[name][2] = math.nan
    refused(lambda: Readings.from_frame(changed), num_rows=1)


def test_dense_faults_name_the_arm():
    error = refused(lambda: dense(count=[10, -1, 30]), num_rows=2)
    assert error.rows == ("arm 1: count -1 is negative",) * 2


def test_files_name_the_line(tmp_path):
    changed = table()
    changed["var"][2] = -1.0
    for suffix, place in ((".csv", "line 4"), (".jsonl", "line 3"), (".parquet", "row 2")):
        path = tmp_path / f"r{suffix}"
        write(path, changed)
        refused(lambda p=path: Readings.from_file(p), f"r{suffix} {place}: var .* is negative", 1)


def test_rows_without_users_say_nothing_and_may_be_empty(tmp_path):
    changed = table()
    changed["count"][0] = changed["count"][4] = 0
    changed["mean"][0] = changed["var"][0] = None
    changed["mean"][4], changed["var"][4] = math.nan, "n/a"
    for make in (
        lambda: Readings.from_frame(changed),
        lambda: Readings.from_file(tmp_path / "r.csv"),
    ):
        write(tmp_path / "r.csv", changed)
        readings = make()
        assert readings.count.tolist() == [0, 1000, 250, 250, 0, 251]
        assert readings.mean.tolist() == [0, 0.125, 3.5, -0.25, 0, 1e-3]
        assert np.isfinite(readings.var).all()
    refused(lambda: Readings.from_frame(changed | {"count": [1] * 6}), num_rows=2)


# --- refused tables ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FRAMES)
def test_missing_and_unknown_columns_are_named(kind):
    frame = FRAMES[kind](without("var", "count", variance=[1.0] * 6))
    reason = r"missing \['count', 'var'\], unknown \['variance'\]"
    refused(lambda: Readings.from_frame(frame), reason)
    refused(lambda: Readings.from_frame(FRAMES[kind](table(extra=[1] * 6))), r"unknown \['extra'\]")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: table(count=[1]), "columns must be of one length, got"),
        (lambda: table(round=4), "column 'round' must be a list of values, one per row, got 4"),
        (lambda: table(metric="views"), "column 'metric' must be a list"),
        (lambda: table(metric={"a": 1}), "column 'metric' must be a list"),
        (lambda: table(mean=torch.tensor(1.0)), "column 'mean' cannot be read|one length|a list"),
        (lambda: table(mean=torch.ones(6, device="meta")), "column 'mean' cannot be read"),
        (lambda: table(mean=np.ones((6, 2))), r"row 0: mean is \[1.0, 1.0\]"),
        (lambda: table(mean=[np.ones((2, 2)), np.ones((2, 3))] * 3), "row 0: mean is array"),
        (lambda: {name: [] for name in TABLE}, "holds no row; send at least one, or nothing"),
        (lambda: pd.DataFrame(table()).iloc[:0], "no row"),
        (lambda: pl.DataFrame(table()).clear().lazy(), "no row"),
        (lambda: {}, "missing"),
        (pd.DataFrame, "missing"),
        (lambda: None, "data frame that Narwhals reads .* got NoneType"),
        (lambda: "r.csv", "got str"),
        (lambda: [table()], "got list"),
        (lambda: pd.Series([1]), "got Series"),
        (lambda: np.ones((3, 6)), "got ndarray"),
        (lambda: pd.DataFrame(table()).assign(**{"": 1}), r"unknown \[''\]"),
        (lambda: pd.DataFrame(table() | {3: [1] * 6}), r"unknown \['3'\]"),
        (lambda: pd.DataFrame(table()).T, "missing"),
        (
            lambda: pd.concat([pd.DataFrame(table()), pd.DataFrame({"mean": [1.0] * 6})], axis=1),
            "cannot be read: .*unique",
        ),
        (lambda: pa.table([[1], [2]], names=["mean", "mean"]), "cannot be read: .*unique"),
        (lambda: pl.LazyFrame(table()).select("nope"), "cannot be read: .*nope"),
        (lambda: pl.LazyFrame(table()).with_columns(pl.col("metric").cast(int)), "cannot be read"),
        (lambda: pl.scan_csv("/no/such/file.csv"), "cannot be read"),
    ],
)
def test_tables_that_are_none(make, reason):
    refused(lambda: Readings.from_frame(make()), f"(?s){reason}")


def test_decimals_and_strings_of_numbers_are_numbers():
    texts = without("metric", "revision")
    texts = {k: [str(v) for v in values] for k, values in texts.items()}
    readings = Readings.from_frame(texts | {"metric": TABLE["metric"]})
    assert [row[:6] for row in rows(readings)] == [row[:6] for row in EXPECTED]
    exact = Readings.from_frame(table(mean=[Decimal("0.1")] * 6))
    assert exact.mean.tolist() == [0.1] * 6
    scalars = Readings.from_frame(table(mean=[torch.tensor(0.5)] * 6))
    assert scalars.mean.tolist() == [0.5] * 6


# --- metric_index -----------------------------------------------------------------------------


def test_metric_index_is_the_column_of_each_name():
    readings = Readings.from_frame(table())
    assert readings.metric_index(["größe", "views", "watch,time"]).tolist() == [1, 2, 1, 2, 1, 0]
    error = refused(lambda: readings.metric_index(["views"]), num_rows=3)
    assert error.rows[0] == "row 1: unknown metric 'watch,time'; known metrics: ['views']"
    refused(lambda: dense(metrics=["a", "b"]).metric_index(["a"]), "arm 0: unknown metric 'b'", 3)


@pytest.mark.parametrize("metrics", [["a"], ["a", "b", "c"]])
def test_unnamed_columns_must_be_all_metrics(metrics):
    refused(
        lambda: dense().metric_index(metrics),
        rf"each of the {len(metrics)} metrics .* got 2; name the columns with metrics=\[...\]",
    )


def test_numbers_for_names_must_be_columns():
    refused(lambda: Readings.from_frame(table(metric=[0, 5] * 3)).metric_index(METRICS), "got 6")
    refused(
        lambda: Readings.from_frame(table(metric=[2, -1] * 3)).metric_index(METRICS),
        "unknown metric -1",
        num_rows=3,
    )


# --- files ------------------------------------------------------------------------------------


def cut_everywhere(tmp_path, suffix, data, full):
    """Read every prefix; returns how many were accepted, all of them rows as they stand."""
    path = tmp_path / f"cut{suffix}"
    accepted = set()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        try:
            got = rows(Readings.from_file(path))
        except ReadingsError as error:
            assert "cut" in str(error) or "no row" in str(error)  # noqa: PT017
            continue
        assert got == full[: len(got)], data[:end]
        assert data[:end].endswith((b"\n", b"\r")), data[:end]
        accepted.add(len(got))
    return accepted


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_text_file_cut_at_any_byte_never_gives_a_wrong_number(tmp_path, suffix, newline):
    path = tmp_path / f"whole{suffix}"
    write(path, table(), newline)
    accepted = cut_everywhere(tmp_path, suffix, path.read_bytes(), EXPECTED)
    # Cut exactly between two rows, a text file cannot tell; all else was refused.
    assert accepted - {6} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_cut_within_a_name_of_two_lines(tmp_path, suffix):
    columns = table(metric=["a\nb", "c"] * 3)
    path = tmp_path / f"whole{suffix}"
    write(path, columns)
    full = list(zip(*(columns[name] for name in FIELDS)))
    assert rows(Readings.from_file(path)) == full
    assert cut_everywhere(tmp_path, suffix, path.read_bytes(), full) == {1, 2, 3, 4, 5}


def test_a_parquet_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "whole.parquet"
    write(path, table())
    data = path.read_bytes()
    path = tmp_path / "cut.parquet"
    ends = {0, 1, 3, 4, 8, 9, *range(12, len(data), 37), *range(len(data) - 12, len(data))}
    for end in sorted(ends):
        path.write_bytes(data[:end])
        refused(lambda: Readings.from_file(path), "cut.parquet is not a complete Parquet file")


def text_file(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


HEADER = "round,candidate,metric,count,mean,var\n"
ROW = '{"round": 1, "candidate": 0, "metric": "v", "count": 5, "mean": 1.5, "var": 2}\n'


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("r.csv", "", "r.csv is empty; expected a header and rows"),
        ("r.jsonl", " \n\n", "is empty"),
        ("r.parquet", "", "not a complete Parquet file"),
        ("r.parquet", HEADER, "not a complete Parquet file"),
        ("r.csv", HEADER, "no row"),
        ("r.csv", HEADER + "1,0,v,5,1.5,2", "not end with a newline.*half-written.*rename"),
        ("r.jsonl", ROW.strip(), "not end with a newline"),
        ("r.csv", HEADER + "1,0,v,5,1.5\n", "line 2: 5 cells under a header of 6; .*half-written"),
        ("r.csv", HEADER + "1,0,v,5,1.5,2,3\n", "line 2: 7 cells"),
        ("r.csv", HEADER + "1,0,v,5,1,5,2\n", "line 2: 7 cells"),
        ("r.csv", HEADER.replace(",", ";") + "1;0;v;5;1.5;2\n", "unknown.*round;candidate"),
        ("r.csv", HEADER.replace(",", ";") + "1;0;v;5;1,5;2\n", "another separator"),
        ("r.csv", HEADER.replace(",", "\t") + "1\t0\tv\t5\t1.5\t2\n", "missing"),
        ("r.csv", HEADER + "1;0;v;5;1.5;2\n", "1 cells .* another separator"),
        ("r.csv", "1,0,v,5,1.5,2\n", "missing"),
        ("r.csv", "round,round,metric,count,mean,var\n1,0,v,5,1,2\n", "names a column twice"),
        ("r.csv", HEADER + '1,0,"v,5,1.5,2\n', "not CSV"),
        ("r.csv", HEADER + '1,0,"v"x,5,1.5,2\n', "line 2: not CSV"),
        ("r.csv", "\n" + HEADER + "1,0,v,5,1.5,2\n", "header of 0"),
        ("r.csv", HEADER + "1,0,v,5,,2\n", "line 2: mean is ''"),
        ("r.csv", HEADER + "1,0,v,5,nan,2\n", "line 2: mean is 'nan'"),
        ("r.csv", HEADER + "1,0,v,5,True,2\n", "line 2: mean is 'True'"),
        ("r.csv", HEADER + '1,0,v,5,"1\n5",2\n', r"mean is '1\\n5'"),
        ("r.csv", HEADER + "1,zero,v,5,1.5,2\n", "line 2: candidate is 'zero'"),
        ("r.csv", HEADER + "1,1.5,v,5,1.5,2\n", "line 2: candidate is '1.5'"),
        ("r.csv", HEADER + "1,0,,5,1.5,2\n", "line 2: metric '' is not a name"),
        ("r.csv", HEADER + "1,0,v,5,1.5,0x10\n", "var is '0x10'"),
        ("r.csv", (HEADER + "1,0,größe,5,1.5,2\n").encode("latin-1"), "is not UTF-8"),
        ("r.csv", (HEADER + "1,0,v,5,1.5,2\n").encode("utf-16"), "is not UTF-8"),
        ("r.csv", (HEADER + "1,0,v,5,1.5,2\n").encode("utf-16-le"), "missing|newline"),
        ("r.csv", b"\x00\xff\xfe\n", "is not UTF-8"),
        ("r.jsonl", HEADER, "line 1: not a JSON object"),
        ("r.jsonl", "[1, 2]\n", r"line 1: expected a JSON object, got '\[1, 2\]'"),
        ("r.jsonl", "3\n", "line 1: expected a JSON object"),
        ("r.jsonl", ROW + '{"round": 1}\n', r"line 2: keys \['round'\] differ from line 1's"),
        ("r.jsonl", ROW + ROW[:30] + "\n", "line 2: not a JSON object, .*half-written"),
        ("r.jsonl", ROW + "\n" + ROW, "line 3: .* stands already at r.jsonl line 1"),
        ("r.jsonl", ROW.replace("1.5", "NaN"), "line 1: mean is nan"),
        ("r.jsonl", ROW.replace("1.5", "Infinity"), "mean is inf"),
        ("r.jsonl", ROW.replace("1.5", "1e999"), "mean is inf"),
        ("r.jsonl", ROW.replace("1.5", "null"), "mean is None"),
        ("r.jsonl", ROW.replace("1.5", "true"), "mean is True"),
        ("r.jsonl", ROW.replace("1.5", "[1.5]"), r"mean is \[1.5\]"),
        ("r.jsonl", ROW.replace('"v"', "[]"), r"metric \[\] is not a name"),
        ("r.jsonl", ROW.replace("1.5", "1" * 5000), "line 1: not a JSON object|mean is"),
        ("r.jsonl", "[" * 100_000 + "\n", "line 1: not a JSON object"),
        ("r.json", ROW, "unknown kind of file '.json'; expected .csv"),
        ("r.xlsx", "x", "unknown kind of file '.xlsx'"),
        ("r", HEADER, "unknown kind of file ''"),
    ],
)
def test_files_that_are_none(tmp_path, name, text, reason):
    path = text_file(tmp_path / name, text)
    refused(lambda: Readings.from_file(path), f"(?s){reason}")


def test_paths_that_lead_to_no_file(tmp_path):
    refused(lambda: Readings.from_file(tmp_path / "none.csv"), "no readings file at .*none.csv")
    refused(lambda: Readings.from_file(tmp_path), "is a directory; name one readings file in it")
    (tmp_path / "dir.csv").mkdir()
    refused(lambda: Readings.from_file(tmp_path / "dir.csv"), "is a directory")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "gone.csv")
    refused(lambda: Readings.from_file(tmp_path / "dangling.csv"), "no readings file")
    refused(lambda: Readings.from_file("a\0.csv"), "no readings file")
    refused(lambda: Readings.from_file(""), "is a directory|no readings file")
    refused(lambda: Readings.from_file(None), "expected the path of a file, got None")


# --- fuzz -------------------------------------------------------------------------------------


def sound_or_refused(make):
    """Either Readings whose every number can be counted on, or a ReadingsError; nothing else."""
    try:
        readings = make()
    except ReadingsError as error:
        assert str(error)  # noqa: PT017
        return False
    for name in ("count", "mean", "var"):
        values = getattr(readings, name)
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
    assert (readings.count >= 0).all()
    assert (readings.var >= 0).all()
    for name in ("round", "candidate", "revision"):
        values = getattr(readings, name)
        assert values.dtype == np.int64
        assert ((values >= 0) & (values < 2**53)).all()
    keys = [row[:3] + row[6:] for row in rows(readings)]
    assert len(set(keys)) == len(keys) == len(readings) > 0
    try:
        index = readings.metric_index(METRICS)
    except ReadingsError:
        return True
    assert ((index >= 0) & (index < 3)).all()
    return True


CELLS = st.one_of(
    st.sampled_from([value for _, value, _ in BAD_CELLS]),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=3),
    st.decimals(),
    st.sampled_from(["views", 0, 1, 7, 0.5, "0", "1.5", np.int8(3), np.float32(0.1)]),
)
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("cell"), st.sampled_from(FIELDS), st.integers(0, 5), CELLS),
        st.tuples(st.just("drop"), st.sampled_from(FIELDS)),
        st.tuples(st.just("rename"), st.sampled_from(FIELDS), st.text(max_size=3)),
        st.tuples(st.just("shorten"), st.sampled_from(FIELDS), st.integers(0, 5)),
        st.tuples(st.just("replace"), st.sampled_from(FIELDS), CELLS),
        st.tuples(st.just("fill"), st.sampled_from(FIELDS), CELLS),
    ),
    max_size=3,
)


def mutate(columns, mutations):
    for kind, name, *rest in mutations:
        if name not in columns:
            continue
        if kind == "cell" and isinstance(columns[name], list) and rest[0] < len(columns[name]):
            columns[name][rest[0]] = rest[1]
        elif kind == "drop":
            del columns[name]
        elif kind == "rename":
            columns[rest[0]] = columns.pop(name)
        elif kind == "shorten" and isinstance(columns[name], list):
            columns[name] = columns[name][: rest[0]]
        elif kind == "replace":
            columns[name] = rest[0]
        elif kind == "fill":
            columns[name] = [rest[0]] * 6
    return columns


@settings(law, max_examples=250)
@given(MUTATIONS)
def test_any_mutated_table_is_sound_or_refused(mutations):
    columns = mutate(table(), mutations)
    accepted = sound_or_refused(lambda: Readings.from_frame(columns))
    assert accepted or mutations
    for build in (pd.DataFrame, pl.DataFrame, pa.table):
        try:
            frame = build(columns)
        except (Exception, pl.exceptions.PanicException):
            continue  # no such frame exists
        sound_or_refused(lambda f=frame: Readings.from_frame(f))


@settings(law, max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["round", "candidate_ids", "count", "mean", "var", "metrics", "revision"]),
        st.one_of(
            CELLS,
            st.lists(CELLS, max_size=4),
            st.lists(st.lists(CELLS, max_size=2), max_size=3),
            st.lists(st.floats(), min_size=3, max_size=3),
        ),
        max_size=2,
    )
)
def test_any_mutated_arrays_are_sound_or_refused(changes):
    accepted = sound_or_refused(lambda: dense(**changes))
    assert accepted or changes


def whole_file(tmp_path_factory, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"r{suffix}"
    write(path, table())
    return path, path.read_bytes()


BYTES = st.sampled_from(list(b'0159-+.eE,;"\n\r {}[]:x\\\x00\xff\xc3naif'))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_any_mutated_file_is_sound_or_refused(tmp_path_factory, suffix):
    path, data = whole_file(tmp_path_factory, suffix)
    edits = st.tuples(
        st.sampled_from(["set", "put", "cut", "swap"]),
        st.integers(0, len(data)),
        st.integers(0, 40),
        st.one_of(BYTES, st.integers(0, 255)),
    )

    @settings(law, max_examples=250)
    @given(st.lists(edits, max_size=4))
    def fuzz(changes):
        changed = bytearray(data)
        for kind, at, span, byte in changes:
            if kind == "set":
                changed[at : at + 1] = bytes([byte])
            elif kind == "put":
                changed[at:at] = bytes([byte])
            elif kind == "cut":
                del changed[at : at + span]
            else:
                changed[at : at + span] = changed[at : at + span][::-1]
        path.write_bytes(changed)
        accepted = sound_or_refused(lambda: Readings.from_file(path))
        assert accepted or changes

    fuzz()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_any_bytes_are_sound_or_refused(tmp_path_factory, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"r{suffix}"

    @law
    @given(
        st.one_of(
            st.binary(max_size=80),
            st.text(max_size=80).map(lambda t: t.encode("utf-8", "surrogatepass")),
        )
    )
    def fuzz(data):
        path.write_bytes(data + b"\n")
        assert not sound_or_refused(lambda: Readings.from_file(path))

    fuzz()
