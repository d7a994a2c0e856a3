"""``hyperzero serve``: tokens by command, and what it refuses before it listens."""

import socket

import pytest
from support.served_study import study_file

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from hyperzero_torch.cli.app import main
from hyperzero_torch.integrations.http.files import places
from hyperzero_torch.integrations.http.run import is_loopback
from hyperzero_torch.integrations.http.tokens import TokenFile


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder; gives its exit code, what it prints and what it notes."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        with pytest.raises(SystemExit) as ended:
            main(["serve", *words])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out.strip(), " ".join(err.split())

    return call


def test_tokens_are_made_listed_and_removed(run, tmp_path):
    code, secret, err = run("token", "add", "anna", "--role", "approver")
    assert code == 0
    assert "not shown again" in err
    assert TokenFile(tmp_path / "tokens.json").caller(secret) == ("anna", "approver")
    assert run("token", "add", "anna", "--role", "viewer")[0] == 3
    code, _, err = run("token", "add", "ben", "--role", "king")
    assert code == 3
    assert "a role is one of viewer, platform, operator, approver" in err
    assert run("token", "list")[1].startswith("anna: approver, since ")
    assert run("token", "remove", "anna")[0] == 0
    assert "holds no token" in run("token", "list")[2]


def test_it_listens_for_others_only_where_there_is_a_token(run, tmp_path):
    file = study_file(tmp_path)
    code, _, err = run("-c", str(file), "--host", "0.0.0.0", "--port", "0")
    assert code == 3
    assert "holds no token; make one first: hyperzero serve token add NAME" in err
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.1.2.3", "::", "somewhere")))


def test_what_cannot_be_served_is_said_at_once(run, tmp_path):
    assert "there is no study to serve" in run("--port", "0")[2]
    assert run("-c", "nothing.yaml")[0] == 3
    file = study_file(tmp_path)
    assert "named twice" in run("-c", str(file), "-c", str(file))[2]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = run("-c", str(file), "--port", str(taken.getsockname()[1]))
    assert code == 3
    assert "name another --host or --port" in err
    (tmp_path / "tokens.json").write_text("[]")
    assert "is not a file of tokens" in run("-c", str(file))[2]
    assert not (tmp_path / "feed.db").exists()


def test_studies_of_one_name_are_told_apart(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    keys = [p.key for p in places([study_file(tmp_path), study_file(other)])]
    assert keys[0] == "feed"
    assert len(set(keys)) == 2
