"""`hyperzero step` reads packed files, standard input, and columns of other names."""

import contextlib
import csv
import gzip
import io
import json
import sys

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

import hyperzero_torch as hz
from hyperzero_torch.cli import main
from hyperzero_torch.errors import ConfigError, ReadingsError
from hyperzero_torch.study.readings.columns import parse_columns, renamed

STUDY = """\
study: s
journal: sqlite:///study.db
parameters: [{kind: float, name: w, low: 0, high: 1}]
base: {w: 0.2}
metrics: [views]
objective: views
traffic: {initial_candidates: 4, num_draws: 20, num_samples: 64, num_starts: 0}
"""
COLUMNS = ("round", "candidate", "metric", "count", "mean", "var")


class Stdin(io.BytesIO):
    """Standard input: bytes below a text."""

    terminal = False

    @property
    def buffer(self):
        return self

    def isatty(self):
        return self.terminal


class Cron:
    """One study with a first plan, and its readings."""

    def __init__(self, folder, capsys, monkeypatch):
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        (folder / "tuning.yaml").write_text(STUDY)
        code, out, err = self.step()
        assert code == 0, err
        ids = [arm["candidate"] for arm in json.loads(out)["arms"]]
        self.rows = [(0, c, "views", 1000 + c, 3.0 + 0.01 * c, 2.0) for c in ids]

    def step(self, *arguments, stdin=b""):
        self.monkeypatch.setattr(sys, "stdin", stdin if isinstance(stdin, Stdin) else Stdin(stdin))
        try:
            main(["step", "-c", str(self.folder / "tuning.yaml"), *map(str, arguments)])
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = self.capsys.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    def recorded(self):
        journal = hz.open_journal(f"sqlite:///{self.folder}/study.db", create=False)
        messages = [e for e in journal.read("s") if type(e).__name__ == "ReadingsReceived"]
        journal.close()
        return messages

    def csv(self, names=COLUMNS):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([names, *self.rows])
        return text.getvalue().encode()

    def jsonl(self, names=COLUMNS):
        return "".join(json.dumps(dict(zip(names, row))) + "\n" for row in self.rows).encode()

    def parquet(self, names=COLUMNS):
        file = io.BytesIO()
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*self.rows))))), file)
        return file.getvalue()


@pytest.fixture
def cron(tmp_path, capsys, monkeypatch):
    return Cron(tmp_path, capsys, monkeypatch)


FORMS = {
    "r.csv": lambda cron: cron.csv(),
    "r.csv.gz": lambda cron: gzip.compress(cron.csv()),
    "r.CSV.GZ": lambda cron: gzip.compress(cron.csv()),
    "r.jsonl.gz": lambda cron: gzip.compress(cron.jsonl()),
    "r.ndjson.gz": lambda cron: gzip.compress(cron.jsonl()),
    "r.parquet": lambda cron: cron.parquet(),
}
STREAMS = {
    "csv": lambda cron: cron.csv(),
    "csv with a mark": lambda cron: b"\xef\xbb\xbf" + cron.csv(),
    "csv of Windows": lambda cron: cron.csv().replace(b"\n", b"\r\n"),
    "json lines": lambda cron: cron.jsonl(),
    "packed csv": lambda cron: gzip.compress(cron.csv()),
    "packed json lines": lambda cron: gzip.compress(cron.jsonl()),
    "two packed parts": lambda cron: (
        gzip.compress(cron.csv()[:40]) + gzip.compress(cron.csv()[40:])
    ),
    "parquet": lambda cron: cron.parquet(),
}


@pytest.fixture(scope="module")
def plan_in_python():
    """The plan of round 1 that the same readings get without a file."""
    config = hz.TunerConfig(initial_candidates=4, num_draws=20, num_samples=64, num_starts=0)
    problem = hz.Problem(hz.SearchSpace([hz.Float("w", 0.0, 1.0)]), {"w": 0.2}, ["views"], "views")
    tuner = hz.Tuner(problem, config, seed=0)
    ids = list(tuner.ask().candidate_ids)
    tuner.tell(
        hz.Readings(
            0, ids, [1000 + c for c in ids], [3.0 + 0.01 * c for c in ids], [2.0] * len(ids)
        )
    )
    with pytest.warns(hz.TunerWarning, match="Sample ratio mismatch"):  # counts of no plan's shares
        return tuner.ask().to_dict()


@pytest.mark.parametrize("name", FORMS)
def test_a_packed_file_gives_the_plan_of_its_readings(cron, name, plan_in_python):
    (cron.folder / name).write_bytes(FORMS[name](cron))
    code, out, err = cron.step("--readings", cron.folder / name)
    assert (code, json.loads(out)) == (0, plan_in_python), err
    assert f"recorded {len(cron.rows)} new rows" in err
    assert "recorded before" in cron.step("--readings", cron.folder / name)[2]


@pytest.mark.parametrize("form", STREAMS)
def test_standard_input_gives_the_plan_of_its_readings(cron, form, plan_in_python):
    code, out, err = cron.step("--readings", "-", stdin=STREAMS[form](cron))
    assert (code, json.loads(out)) == (0, plan_in_python), err
    # The same rows from a file are the same message.
    (cron.folder / "r.csv").write_bytes(cron.csv())
    assert "recorded before" in cron.step("--readings", cron.folder / "r.csv")[2]


THEIRS = ("hour", "arm", "kpi", "n", "avg", "var")
MAPPED = "round=hour,candidate=arm,metric=kpi, count = n ,mean=avg"


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("split", [False, True])
def test_columns_of_other_names(cron, form, split, plan_in_python):
    data = getattr(cron, form)(THEIRS)
    options = [f"--columns={pair}" for pair in MAPPED.split(",")] if split else [
        "--columns", MAPPED
    ]  # fmt: skip
    code, out, err = cron.step("--readings", "-", *options, stdin=data)
    assert (code, json.loads(out)) == (0, plan_in_python), err
    (cron.folder / "r.jsonl.gz").write_bytes(gzip.compress(cron.jsonl(THEIRS)))
    code, _, err = cron.step("--readings", cron.folder / "r.jsonl.gz", "--columns", MAPPED)
    assert "recorded before" in err


def test_columns_whose_names_are_exchanged(cron, plan_in_python):
    names = ("candidate", "round", "metric", "count", "var", "mean")
    options = ["--columns", "round=candidate,candidate=round,mean=var,var=mean"]
    code, out, err = cron.step("--readings", "-", *options, stdin=cron.csv(names))
    assert (code, json.loads(out)) == (0, plan_in_python), err


def cut(data):
    return data[: len(data) // 2]


REFUSED = {
    "a packed file cut short": ("r.csv.gz", lambda c: cut(gzip.compress(c.csv())), (), "half-writ"),
    "a packed file whose text is cut": (
        "r.csv.gz", lambda c: gzip.compress(c.csv()[:-1]), (), "does not end with a newline",
    ),
    "not packed at all": ("r.csv.gz", lambda c: c.csv(), (), "r.csv.gz is not packed by gzip"),
    "packed and damaged": (
        "r.csv.gz", lambda c: gzip.compress(c.csv())[:-8] + b"\0" * 8, (), "is not packed by gzip",
    ),
    "an unknown packed kind": ("r.txt.gz", lambda c: c.csv(), (), "each also with .gz"),
    "packed Parquet": ("r.parquet.gz", lambda c: c.parquet(), (), "or .parquet"),
    "an empty input": ("-", lambda c: b"", (), "standard input is empty"),
    "an input cut short": ("-", lambda c: c.csv()[:-1], (), "standard input does not end with"),
    "a packed input cut short": ("-", lambda c: cut(gzip.compress(c.csv())), (), "half-written"),
    "a Parquet input cut short": ("-", lambda c: cut(c.parquet()), (), "not a complete Parquet"),
    "text that is no UTF-8": ("-", lambda c: c.csv() + b"\xff\n", (), "is not UTF-8"),
    "a row at fault": (
        "-", lambda c: c.csv().replace(b",2.0\n", b",-1\n", 1), (), "standard input line 2: var",
    ),
    "a column that is not there": (
        "r.csv", lambda c: c.csv(), ("--columns", "round=hour"), "r.csv has no column ['hour']",
    ),
    "two columns for one": (
        "r.csv", lambda c: c.csv(("hour", *COLUMNS[1:5], "round")), ("--columns", "round=hour"),
        "r.csv has a column ['round'] beside ['hour']",
    ),
    "a name that is not ours": (
        "r.csv", lambda c: c.csv(), ("--columns", "hour=round"), "'hour' is no column of readings",
    ),
    "no pair": ("r.csv", lambda c: c.csv(), ("--columns", "hour"), "expects ours=theirs"),
    "a column twice": (
        "r.csv", lambda c: c.csv(), ("--columns", "round=a,round=b"), "names a column twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(cron, case):
    name, make, options, message = REFUSED[case]
    data = make(cron)
    if name != "-":
        (cron.folder / name).write_bytes(data)
    place = name if name == "-" else cron.folder / name
    before = (cron.folder / "study.db").read_bytes()
    code, out, err = cron.step("--readings", place, *options, stdin=data)
    assert (code, out) == (3, "")
    assert message in err
    assert (cron.folder / "study.db").read_bytes() == before
    assert cron.recorded() == []


def test_how_standard_input_and_columns_are_misused(cron):
    code, _, err = cron.step("--readings", "-", "--readings", "-", stdin=cron.csv())
    assert code == 3
    assert "read once" in err
    code, _, err = cron.step("--columns", "round=hour")
    assert code == 3
    assert "there are none" in err
    terminal = Stdin()
    terminal.terminal = True
    code, _, err = cron.step("--readings", "-", stdin=terminal)
    assert code == 3
    assert "a terminal here" in err


def test_files_and_standard_input_together(cron):
    (cron.folder / "first.csv").write_bytes(cron.csv().replace(cron.csv().split(b"\n")[1], b"", 1))
    rest = b"\n".join(cron.csv().split(b"\n")[:2]) + b"\n"
    code, _, err = cron.step("--readings", cron.folder / "first.csv", "--readings", "-", stdin=rest)
    assert code == 0, err
    assert f"recorded {len(cron.rows)} new rows of {len(cron.rows)}" in err


def test_readings_of_python_take_other_names_too(tmp_path):
    (tmp_path / "r.csv").write_text("hour,candidate,metric,count,mean,var\n4,0,v,9,1.5,2\n")
    read = hz.Readings.from_file(tmp_path / "r.csv", columns={"round": "hour"})
    assert read.round.tolist() == [4]
    stream = io.BytesIO((tmp_path / "r.csv").read_bytes())
    assert hz.Readings.from_stream(stream, {"round": "hour"}).round.tolist() == [4]


NAME = st.text(st.characters(exclude_characters=",=", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(NAME.map(str.strip).filter(bool), min_size=6, max_size=6, unique=True))
def test_any_names_are_read_back(names):
    mapping = dict(zip(COLUMNS, names))
    text = ",".join(f"{ours}={theirs}" for ours, theirs in mapping.items())
    assert parse_columns([text], COLUMNS) == mapping
    columns = {theirs: [i] for i, theirs in enumerate(names)}
    assert renamed(columns, mapping, "r.csv") == {ours: [i] for i, ours in enumerate(COLUMNS)}


@given(st.text())
def test_any_text_is_a_mapping_or_an_error_of_ours(text):
    with contextlib.suppress(ConfigError):
        assert set(parse_columns([text], COLUMNS)) <= set(COLUMNS)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x1f\x8b", b"PAR1", b"{", b"round,"]))
def test_any_bytes_are_readings_or_are_refused(data, start):
    with pytest.raises(ReadingsError):
        hz.Readings.from_stream(io.BytesIO(start + data))
