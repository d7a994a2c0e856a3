"""The shipped assignment functions: Python, JavaScript, Go and SQL answer the same vectors."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import postgres

import hyperzero_torch as hz
from hyperzero_torch.live import TableUpdater, assign, bucket, read_table, takes_part
from hyperzero_torch.study.config import LiveConfig
from hyperzero_torch.testing import UpdaterContract, example_plan

FOLDER = Path(__file__).parents[2] / "examples" / "assignment"
VECTORS = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))


def module(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


shipped = module("assignment")


class TestSha256TableKeepsTheLaws(UpdaterContract):
    """Read by the shipped function, as an application would."""

    num_users = 8_000

    def make_updater(self, tmp_path):
        return TableUpdater(tmp_path / "table.json", hash="sha256")

    def served(self, updater, users, base):
        if not updater.path.exists():
            return [hz.live.Assignment(0, None, dict(base), "no table") for _ in users]
        table = read_table(updater.path)
        served = [assign(table, user) for user in users]
        assert [(s["candidate"], s["round"]) for s in (shipped.assign(table, u, 0.0) for u in users)
                ] == [(a.candidate, a.round) for a in served]  # fmt: skip
        return served


def test_vectors_are_current_and_say_something():
    assert module("make_vectors").text() == (FOLDER / "vectors.json").read_text(encoding="utf-8")
    served = VECTORS["assignments"]
    assert {row["candidate"] for row in served} == {0, 2, 3}  # arm 1 has a share of 0
    of_u1 = [row["round"] for row in served if row["unit"] == "u1"]
    assert of_u1 == [17, None, 17, 17, None]  # in the lease, before it, its ends
    for row in VECTORS["places"]:  # by hand, without the package
        text = f"{row['salt']}/{row['round']}/{row['unit']}"
        digest = hashlib.sha256(text.encode()).digest()
        assert row["place"] == (int.from_bytes(digest[:8], "big") >> 12) / 2**52


def test_python_answers_the_vectors():
    for row in VECTORS["places"]:
        assert shipped.place(row["unit"], row["round"], row["salt"]) == row["place"]
    for row in VECTORS["parts"]:
        assert shipped.takes_part(row["unit"], row["share"], row["salt"]) is row["part"]
    for row in VECTORS["assignments"]:
        got = shipped.assign(VECTORS["table"], row["unit"], row["now"])
        assert (got["candidate"], got["round"]) == (row["candidate"], row["round"])


def test_javascript_answers_the_vectors(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    functions = json.dumps((FOLDER / "assignment.mjs").as_uri())
    vectors = json.dumps(str(FOLDER / "vectors.json"))
    script = tmp_path / "check.mjs"
    script.write_text(
        f"""
        import {{ readFileSync }} from "node:fs";
        import {{ assign, place, takesPart }} from {functions};
        const vectors = JSON.parse(readFileSync({vectors}, "utf8"));
        let wrong = [];
        for (const v of vectors.places)
          if (place(v.unit, v.round, v.salt) !== v.place) wrong.push(v);
        for (const v of vectors.parts)
          if (takesPart(v.unit, v.share, v.salt) !== v.part) wrong.push(v);
        for (const v of vectors.assignments) {{
          const got = assign(vectors.table, v.unit, v.now);
          if (got.candidate !== v.candidate || got.round !== v.round) wrong.push(v);
        }}
        if (place(17, 3, "s") !== place("17", "3", "s")) wrong.push("a number and its text");
        let refused = false;
        try {{ assign({{ ...vectors.table, hash: "other" }}, "u", 0); }} catch {{ refused = true; }}
        if (!refused) wrong.push("a table of another hash");
        console.log(JSON.stringify(wrong));
        """,
        encoding="utf-8",
    )
    done = subprocess.run([node, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_go_answers_the_vectors(tmp_path):
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed")
    shutil.copytree(FOLDER, tmp_path / "assignment")
    done = subprocess.run(
        [go, "test", "./..."], cwd=tmp_path / "assignment", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_duckdb_answers_the_vectors():
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as db:
        db.execute((FOLDER / "sql/duckdb.sql").read_text(encoding="utf-8"))
        for row in VECTORS["places"]:
            arguments = [row["salt"], row["round"], row["unit"]]
            got = db.execute("SELECT hyperzero_place($1, $2, $3)", arguments).fetchone()
            assert got == (row["place"],)


def test_postgres_answers_the_vectors():
    if postgres.why_not() is not None:
        pytest.skip(postgres.why_not())
    import sqlalchemy as sa

    engine = sa.create_engine(postgres.shared_server().schema())
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql((FOLDER / "sql/postgres.sql").read_text(encoding="utf-8"))
            query = sa.text("SELECT hyperzero_place(:salt, :round, :unit)")
            for row in VECTORS["places"]:
                values = {name: row[name] for name in ("salt", "round", "unit")}
                assert connection.execute(query, values).scalar() == row["place"]
    finally:
        engine.dispose()


@pytest.mark.parametrize("dialect", sorted(p.stem for p in (FOLDER / "sql").glob("*.sql")))
def test_sql_of_other_databases_is_parsed(dialect):
    sqlglot = pytest.importorskip("sqlglot")
    text = (FOLDER / f"sql/{dialect}.sql").read_text(encoding="utf-8")
    (statement,) = sqlglot.parse(text, read=dialect)
    assert type(statement).__name__ == "Create"


@settings(max_examples=50)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.integers(0, 2**53 - 1),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1),
)
def test_the_package_and_the_shipped_function_agree(unit, number, salt):
    at = bucket(unit, number, salt, "sha256")
    assert 0.0 <= at < 1.0
    assert at == shipped.place(unit, number, salt)
    assert takes_part(unit, 0.5, salt, "sha256") == shipped.takes_part(unit, 0.5, salt)
    assert at != bucket(unit, number, salt)


def test_tables_of_another_hash_are_told_apart(tmp_path):
    path = tmp_path / "table.json"
    TableUpdater(path, hash="sha256").apply(example_plan(1, (0.5, 0.5)))
    table = read_table(path)
    assert (table["version"], table["hash"]) == (4, "sha256")
    for change in ({"version": 1}, {"version": 3}, {"hash": "md5"}, {"hash": "blake2b"}):
        path.write_text(json.dumps(table | change))
        with pytest.raises(hz.ConfigError, match="not an assignment table of version 1 to 4"):
            read_table(path)
    plain = tmp_path / "plain.json"
    TableUpdater(plain).apply(example_plan(1, (0.5, 0.5)))
    with pytest.raises(ValueError, match="hash sha256"):
        shipped.assign(read_table(plain), "u", 0.0)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"hash": "md5"}, "a hash is one of"),
        ({"hash": "sha256", "salt": "a/b"}, "no slash"),
    ],
)
def test_hashes_and_salts_that_cannot_be(tmp_path, given_, message):
    with pytest.raises(hz.ConfigError, match=message):
        TableUpdater(tmp_path / "table.json", **given_)


def test_the_study_file_names_the_hash():
    logs = {"exposures": "e/*.parquet", "events": "v/*.parquet"}
    assert LiveConfig(**logs, table="t.json", hash="sha256").hash == "sha256"
    with pytest.raises(hz.ConfigError, match="is for a table"):
        LiveConfig(**logs, flags="f.json", hash="sha256")
    with pytest.raises(hz.ConfigError, match="no slash"):
        LiveConfig(**logs, table="t.json", hash="sha256", flag="a/b")
