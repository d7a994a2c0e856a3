"""A journal's address gives one error of ours, or works; commands that read create nothing."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

import hyperzero_torch as hz
from hyperzero_torch.cli import main
from hyperzero_torch.study.journal.address import Address

STUDY = """\
study: s
journal: {journal}
parameters: [{{kind: float, name: w, low: 0, high: 1}}]
base: {{w: 0.2}}
metrics: [views]
objective: views
traffic: {{initial_candidates: 4, num_draws: 20, num_samples: 64, num_starts: 0}}
"""
READING = [
    ("status",),
    ("status", "--json"),
    ("recommend",),
    ("report",),
    ("explain",),
    ("rollback", "--to-round", 0, "--reason", "x"),
    ("set-aside", "--round", 0, "--reason", "x"),
    ("compact", "--keep", 0),
    ("compact", "--keep", 0, "--yes"),
    ("transfer", "export", "--out", "x.json", "--expires", "30d", "--scope", "a"),
    ("transfer", "overrule", "--discount", "north=0.5", "--reason", "x"),
]
MISSING = [
    "sqlite:///study.db",
    "sqlite:///./study.db",
    "sqlite+pysqlite:///study.db",
    "sqlite:///study.db?timeout=5",
    "sqlite:///file:study.db?uri=true",
    "sqlite:///file:study.db?mode=rwc&uri=true",
]


def run(capsys, *arguments):
    try:
        main([str(a) for a in arguments])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A study file that is not in the working folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def write(journal):
        path = tmp_path / "study" / "tuning.yaml"
        path.write_text(STUDY.format(journal=json.dumps(journal)))
        return path

    return write


def files(tmp_path):
    return sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize("journal", MISSING)
@pytest.mark.parametrize("command", READING, ids=lambda c: "-".join(map(str, c)))
def test_commands_that_start_no_study_create_no_database(
    config, command, journal, tmp_path, capsys
):
    group, options = command[:1], command[1:]
    if group == ("transfer",):
        group, options = command[:2], command[2:]
    code, out, err = run(capsys, *group, "-c", config(journal), *options)
    assert (code, out) == (3, ""), err
    assert "there is no journal" in err
    assert files(tmp_path) == ["study/tuning.yaml"]


def test_an_empty_file_becomes_no_database(config, tmp_path, capsys):
    path = config("sqlite:///study.db")
    (tmp_path / "study" / "study.db").touch()
    code, _, err = run(capsys, "status", "-c", path)
    assert code == 3
    assert "make the first plan with 'hyperzero step" in err
    assert (tmp_path / "study" / "study.db").read_bytes() == b""


@pytest.mark.parametrize("journal", MISSING)
def test_a_dry_run_of_step_creates_no_database_and_step_creates_it_beside_the_study(
    config, journal, tmp_path, capsys
):
    path = config(journal)
    code, _, err = run(capsys, "step", "-c", path, "--dry-run")
    assert code == 0, err
    assert files(tmp_path) == ["study/tuning.yaml"]
    code, out, err = run(capsys, "step", "-c", path)
    assert code == 0, err
    assert files(tmp_path) == ["study/study.db", "study/tuning.yaml"]
    plan = json.loads(out)
    code, out, err = run(capsys, "step", "-c", path, "--round", plan["round"])
    assert json.loads(out) == plan, err
    code, out, err = run(capsys, "status", "-c", path, "--json")
    assert json.loads(out)["last_round"] == plan["round"], err


WRONG = [
    ("sqlite://study.db", "write sqlite:///study.db"),
    ("sqlite://./study.db", "write sqlite:///./study.db"),
    ("sqlite:study.db", "write sqlite:///study.db"),
    ("sqlite:/data/study.db", "write sqlite:////data/study.db"),
    ("study.db", "write sqlite:///study.db"),
    ("./runs/study.db", "write sqlite:///./runs/study.db"),
    ("/data/study.db", "write sqlite:////data/study.db"),
    ("file:study.db", "write sqlite:///study.db"),
    ("sqlite:///~/study.db", "write sqlite:////home/me/study.db"),
    (r"sqlite:///C:\runs\study.db", "a path of Windows"),
    ("sqlite+aiosqlite:///study.db", "write sqlite:///study.db"),
    ("postgresql+psycopg2://u:s3cret@h/d", "write postgresql://user:password@host/database"),
    ("postgres+asyncpg://u:s3cret@h/d", "write postgresql://user:password@host/database"),
    ("mysql://u:s3cret@h/d", "expected a URL such as sqlite:///study.db or postgresql"),
    ("mysql+pymysql://u:s3cret@h/d", "expected a URL such as sqlite:///study.db or postgresql"),
    ("redis://h", "expected a URL such as sqlite:///study.db or postgresql"),
    ("duckdb:///study.db", "expected a URL such as sqlite:///study.db or postgresql"),
]


@pytest.mark.parametrize(("journal", "advice"), WRONG)
def test_an_address_that_is_not_understood_is_one_error_with_the_right_form(
    config, journal, advice, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HOME", "/home/me")
    path = config(journal)
    for command in (("step",), ("step", "--dry-run"), ("status",), ("recommend",)):
        code, out, err = run(capsys, command[0], "-c", path, *command[1:])
        assert (code, out) == (4, "")
        assert advice in err
        assert "s3cret" not in err
    problem = hz.Problem(hz.SearchSpace([hz.Float("w", 0.0, 1.0)]), {"w": 0.2}, ["v"], "v")
    for call in (hz.Tuner, hz.Tuner.resume):
        with pytest.raises(hz.JournalError, match="is not understood") as caught:
            call(problem=problem, journal=journal)
        assert advice in str(caught.value)
    assert files(tmp_path) == ["study/tuning.yaml"]


@pytest.mark.parametrize("journal", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_journal_in_memory_is_refused_in_a_study_file(config, journal, capsys):
    code, _, err = run(capsys, "step", "-c", config(journal))
    assert code == 3
    assert "in memory and lost when the command ends" in err


def test_the_form_that_a_message_names_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    problem = hz.Problem(hz.SearchSpace([hz.Float("w", 0.0, 1.0)]), {"w": 0.2}, ["v"], "v")
    for journal, advice in WRONG[:9]:
        if "/data/" in journal or "runs" in journal:
            continue
        with pytest.raises(hz.JournalError) as caught:
            hz.Tuner(problem, journal=journal)
        meant = str(caught.value).split(" write ")[1].split()[0]
        tuner = hz.Tuner(problem, journal=meant)
        tuner.journal.close()
        assert (tmp_path / "study.db").exists(), advice
        (tmp_path / "study.db").unlink()


@given(st.text(max_size=20), st.sampled_from(["", "sqlite:", "sqlite://", "sqlite:///", "a://"]))
@example("[", "sqlite://")
@example("h:port/d", "sqlite://")
@example("\0", "sqlite:///")
@example("~0", "sqlite:///")
def test_an_address_is_understood_or_is_a_journal_error(text, scheme):
    try:
        address = Address.of(scheme + text)
    except hz.JournalError:
        return
    assert address.is_sqlite
    assert address.file is None or address.file


def test_the_home_of_a_user_who_is_not_there_is_asked_for_in_full():
    with pytest.raises(hz.JournalError, match="'~' is not replaced in a URL; write the path in"):
        Address.of("sqlite:///~no-such-user/study.db")
