"""The API: who may do what, what is recorded, and what is refused, in this process."""

import asyncio
import json
import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.journal_files import remove_logs
from support.served_study import ROLES, Client, plan_of, rows_of, study_file
from support.small_study import make, play, reply

import hyperzero_torch as hz
from hyperzero_torch import errors

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx2", reason="the client of Starlette's tests is not installed")

from starlette.testclient import TestClient

from hyperzero_torch.integrations.http.answers import Json, shown, status_of
from hyperzero_torch.integrations.http.app import create_app
from hyperzero_torch.integrations.http.files import places
from hyperzero_torch.integrations.http.limits import Rate
from hyperzero_torch.integrations.http.tokens import TokenFile
from hyperzero_torch.study.journal.base import ConflictError

WHY = {"reason": "a release until Friday"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A study of eight rounds, served; and another whose name is an attack."""
    folder = tmp_path_factory.mktemp("served")
    evil = f"sqlite:///{folder}/evil.db"
    play(hz.Tuner(make().problem, make().config, evil, "<b>evil</b>/../x"), 1)
    tokens = TokenFile(folder / "tokens.json")
    secrets = {role: tokens.add(role, role) for role in ROLES}
    app = create_app(places([study_file(folder)], [evil]), tokens, max_body=200_000)
    with TestClient(app, raise_server_exceptions=False) as http:
        client = Client(http, secrets)
        client.play(8)
        client.folder, client.app, client.tokens = folder, app, tokens
        yield client


@pytest.fixture
def fresh(tmp_path):
    """Servers over studies that have not begun."""
    opened = []

    def start(name="feed", **traffic):
        tokens = TokenFile(tmp_path / "tokens.json")
        known = {token.name for token in tokens.tokens()}
        secrets = {role: tokens.add(f"{role} {len(known)}", role) for role in ROLES}
        file = study_file(tmp_path, name, **traffic)
        http = TestClient(create_app(places([file]), tokens), raise_server_exceptions=False)
        http.__enter__()
        opened.append(http)
        client = Client(http, secrets, name)
        client.folder = tmp_path
        return client

    yield start
    for http in opened:
        http.__exit__(None, None, None)


def decisions(client, what="kind, reason", name="feed"):
    with sqlite3.connect(client.folder / f"{name}.db") as db:
        return db.execute(f"SELECT {what} FROM decisions ORDER BY entry").fetchall()


def refused(answer, status, words=""):
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]["message"]


def test_only_health_and_the_document_are_open(world):
    http = world.http
    assert http.get("/healthz").json() == {"ok": True}
    assert http.head("/healthz").status_code == 200
    paths = http.get("/openapi.json").json()["paths"]
    assert len(paths) > 20
    for path, methods in paths.items():
        for method in methods:
            answer = http.request(method, path.replace("{study}", "feed"))
            assert (answer.status_code == 401) == (path != "/healthz"), path
    refused(http.get("/v1/studies", headers={"Authorization": "Bearer hz_x"}), 401, "not known")
    refused(http.get("/v1/studies", headers={"Authorization": "Basic eDp5"}), 401, "not known")


@pytest.mark.parametrize(
    ("path", "body", "allowed"),
    [
        ("ask", {"round": 0}, {"platform"}),
        ("tell", {"rows": []}, {"platform"}),
        ("switches/stop", {**WHY, "candidates": [999]}, {"operator", "approver"}),
        ("switches/approve", WHY, {"approver"}),
        ("launch", {**WHY, "dry_run": True}, {"approver"}),
        ("launch/abort", WHY, {"operator", "approver"}),
        ("promote", WHY, {"approver"}),
        ("goals", {**WHY, "dry_run": True}, {"approver"}),
        ("posterior", {"parameters": [{"a": 0.1, "b": 0.2}]}, set(ROLES)),
    ],
)
def test_a_role_does_what_it_may_and_nothing_else(world, path, body, allowed):
    for role in ROLES:
        answer = world.post(path, role, json=body)
        assert (answer.status_code == 403) == (role not in allowed), answer.text
        if role not in allowed:
            refused(answer, 403, "nothing was changed")


def test_everything_about_a_study_is_read(world):
    studies = world.get("/v1/studies").json()["studies"]
    assert [study["name"] for study in studies] == ["feed", "<b>evil</b>/../x"]
    assert studies[0]["id"] == "feed"
    assert world.get(f"/v1/studies/{studies[1]['id']}/plan").json()["round"] == 0
    assert studies[0]["state"] in ("PASS", "WATCH", "ACT")
    tuner = hz.Tuner.resume(f"sqlite:///{world.folder}/feed.db", "feed")
    assert studies[0]["sentence"] == tuner.verdict().sentence
    status = world.get("status").json()
    assert (status["study"], status["last_round"]) == ("feed", 7)
    assert status["verdict"] == tuner.verdict().to_dict()
    assert world.get("plan").json() == tuner.study.plan(7).to_dict()
    assert world.get("plan?round=3").json() == tuner.study.plan(3).to_dict()
    best = world.get("recommend").json()
    assert best["candidate_id"] == tuner.recommend().candidate_id
    explained = world.get("explain").json()["arms"]
    assert [arm["candidate"] for arm in explained] == list(tuner.study.plan(7).candidate_ids)
    theta = {"a": 0.3, "b": 0.7}
    answer = world.post("posterior", json={"parameters": [theta]}).json()
    mean, var = tuner.posterior(theta)
    assert answer["mean"] == [pytest.approx(mean.tolist())]
    assert answer["var"] == [pytest.approx(var.tolist())]
    assert world.get("goals").json()["goals"][0]["problem"]["objective"] == "gain"
    assert world.get("launch").json() == {"launch": None}
    assert world.get("switches").json()["mode"] == "running"


def test_the_history_comes_in_pages(world):
    rows, after = [], 0
    while after is not None:
        page = world.get(f"history?what=readings&after={after}&limit=50").json()
        assert len(page["rows"]) <= 50
        rows += page["rows"]
        after = page["next"]
    assert len(rows) == page["total"]
    frame = hz.Tuner.resume(f"sqlite:///{world.folder}/feed.db", "feed").to_frame("readings")
    assert [row["mean"] for row in rows] == frame["mean"].tolist()
    assert world.get("history?what=rounds").json()["total"] == 8
    candidates = world.get("history?what=candidates&limit=2").json()
    assert candidates["rows"][0]["parameters"] == {"a": 0.4, "b": 0.6}
    recorded = world.get("history?kind=messages").json()
    assert recorded["total"] == 8
    assert "of platform" in recorded["rows"][0]["reason"]
    refused(world.get("history?limit=100000"), 422, "limit")


def test_a_study_begins_with_the_first_ask_and_goes_on_as_it_would_alone(fresh):
    client = fresh()
    refused(client.get("status"), 404, "has not begun")
    assert client.get("/v1/studies").json()["studies"][0]["last_round"] is None
    refused(client.post("tell", "platform", json={"rows": [row(0)]}), 404, "has not begun")
    client.play(3)
    alone = make()
    play(alone, 3)
    assert client.post("ask", "platform").json()["plan"] == alone.ask().to_dict()


def row(round_, candidate=0, metric="gain", mean=10.0, **more):
    return {
        "round": round_, "candidate": candidate, "metric": metric, "count": 50.0, "mean": mean,
        "var": 1.0, **more,
    }  # fmt: skip


def test_a_message_counts_once_however_often_and_however_it_is_sent(fresh):
    client = fresh()
    plan = client.post("ask", "platform").json()["plan"]
    rows = rows_of(reply(plan_of(plan)))
    key = {"Idempotency-Key": "hour 0"}
    first = client.post("tell", "platform", json={"rows": rows}, headers=key).json()
    assert first == {
        "rows": len(rows), "new": len(rows), "left_out": "", "repeated": False, "warnings": [],
    }  # fmt: skip
    before = decisions(client)
    again = client.post("tell", "platform", json={"rows": rows}, headers=key).json()
    assert again == {**first, "repeated": True}
    other = client.post("tell", "platform", json={"rows": rows[:3]}, headers=key)
    refused(other, 422, "recorded before with other content")
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    kind = {"Content-Type": "application/x-ndjson"}
    same = client.post("tell", "platform", content=lines, headers=kind).json()
    assert (same["new"], same["repeated"]) == (0, False)
    assert decisions(client) == before
    # Another server on the same journal knows it too; ids are each sender's own.
    later = fresh()
    later.secrets["platform"] = client.secrets["platform"]
    assert later.post("tell", "platform", json={"rows": rows}, headers=key).json() == again
    revised = [{**r, "revision": 1} for r in rows]
    approver = fresh()  # a platform of another name
    answer = approver.post("tell", "platform", json={"rows": revised}, headers=key).json()
    assert (answer["new"], answer["repeated"]) == (len(rows), False)


def test_an_ask_with_an_id_gets_the_same_plan_again(fresh):
    client = fresh()
    key = {"Idempotency-Key": "run 17"}
    first = client.post("ask", "platform", headers=key).json()
    second = client.post("ask", "platform", headers=key).json()
    assert first["plan"] == second["plan"]
    assert (
        client.post("ask", "platform", headers={"Idempotency-Key": "18"}).json()["plan"]["round"]
        == first["plan"]["round"] + 1
    )
    with sqlite3.connect(client.folder / "feed.db") as db:
        (details,) = db.execute(
            "SELECT details FROM entries WHERE kind = 'planned' ORDER BY entry"
        ).fetchone()
    assert "platform 0: run 17" in details
    refused(client.post("ask", "platform", json={"round": 900}), 409, "typo")
    far = client.post("ask", "platform", json={"round": 900, "allow_gap": True}).json()
    assert far["plan"]["round"] == 900


def test_who_tells_absurd_readings_is_warned_and_nobody_else(fresh):
    client = fresh()
    client.play(3)
    plan = client.post("ask", "platform").json()["plan"]
    rows = rows_of(reply(plan_of(plan)))
    rows[-1]["mean"] *= 1e6
    answer = client.post("tell", "platform", json={"rows": rows}).json()
    assert answer["new"] == len(rows)
    assert any("Set aside" in warning for warning in answer["warnings"])
    assert client.get("status").json()["quarantined"] == 1
    states = {card["name"]: card["state"] for card in client.get("status").json()["health"]}
    assert states["Quarantine"] == "ACT"
    assert client.get("recommend").json()["warnings"] == []


def test_telling_fits_nothing(world, monkeypatch):
    def fail(*_):
        raise AssertionError("a model was fitted")

    monkeypatch.setattr("hyperzero_torch.tuner.estimates.update_model", fail)
    answer = world.post("tell", "platform", json={"rows": [row(6, revision=3)]})
    assert answer.json()["new"] == 1


def test_senders_at_once_each_get_their_answer_and_nothing_is_lost(fresh):
    client = fresh()
    plan = client.post("ask", "platform").json()["plan"]
    arms = [arm["candidate"] for arm in plan["arms"]]

    def send(number):
        """Of four senders with the same row one is new; every tenth has an unknown arm."""
        if number % 10 == 9:
            return client.post("tell", "platform", json={"rows": [row(0, 9999)]})
        rows = [row(0, arm, mean=10.0 + number // 4, revision=number // 4) for arm in arms]
        return client.post("tell", "platform", json={"rows": rows})

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(40)))
    wrong = answers[9::10]
    assert all(answer.status_code == 422 for answer in wrong)
    right = [a for i, a in enumerate(answers) if i % 10 != 9]
    assert {answer.status_code for answer in right} == {200}
    stored = client.get("history?what=readings").json()["rows"]
    assert {(r["candidate"], r["mean"], r["revision"]) for r in stored} == {
        (arm, 19.0, 9) for arm in arms
    }
    with sqlite3.connect(client.folder / "feed.db") as db:
        (num,) = db.execute("SELECT COUNT(*) FROM readings").fetchone()
    assert num == sum(answer.json()["new"] for answer in right)
    assert hz.Tuner.resume(f"sqlite:///{client.folder}/feed.db", "feed").study.verify()


def test_two_operators_see_what_the_other_did_and_the_journal_has_both(fresh):
    client = fresh()
    client.play(2)
    flags = client.folder / "feed.json"

    def variants():
        return json.loads(flags.read_text())["flags"]["value-model"]["variants"]

    paused = client.post("switches/pause", "operator", json=WHY).json()
    assert paused["served"] == "round 1 is served"
    assert len(variants()) > 1
    assert client.post("switches/resume", "operator", json=WHY).is_success
    done = client.post("switches/withdraw", "operator", json=WHY).json()
    assert done["switches"]["mode"] == "withdrawn"
    assert "only the control is served" in done["served"]
    assert len(variants()) == 1
    late = client.post("switches/withdraw", "approver", json={"reason": "I too"})
    refused(late, 409, "withdrawn already, by operator 0 (a release until Friday)")
    assert client.get("switches").json()["mode_by"] == "operator 0"
    assert client.get("plan").json()["round"] is None
    back = client.post("switches/resume", "approver", json={"reason": "it is out"}).json()
    assert back["served"] == "round 1 is served"
    stop = {"reason": "it crashes", "candidates": [1]}
    assert client.post("switches/stop", "operator", json=stop).status_code == 200
    refused(client.post("switches/stop", "approver", json=stop), 409, "stopped already")
    assert client.post("switches/let-back", "operator", json=stop).status_code == 200
    pin = {"reason": "a partner", "candidate": 2, "share": 0.05}
    assert client.post("switches/pin", json=pin).json()["switches"]["pinned"] == {"2": 0.05}
    assert client.post("switches/unpin", json={"reason": "seen", "candidate": 2}).is_success
    assert client.post("switches/pause", "operator", json=WHY).is_success
    assert client.post("switches/rollback", json={"reason": "a bug", "to_round": 1}).is_success
    rows = client.get("history").json()["rows"]
    by = [(r["kind"], r["by"]) for r in rows if r["by"] and r["kind"] != "messages"]
    assert ("traffic withdrawn", "operator 0") in by
    assert ("resumed", "approver 0") in by
    assert ("rolled back", "approver 0") in by


def test_a_plan_waits_for_somebody_else(fresh):
    client = fresh(approval_above=0.01)
    answer = client.post("ask", "platform").json()
    assert [arm["candidate"] for arm in answer["plan"]["arms"]] == [0]
    assert client.get("switches").json()["waiting_for_approval"]["above"] == 0.01
    assert client.get("/v1/studies").json()["studies"][0]["state"] == "ACT"
    assert client.post("switches/approve", json=WHY).is_success
    assert len(client.post("ask", "platform").json()["plan"]["arms"]) > 1


def test_a_launch_and_goals(fresh):
    client = fresh()
    client.play(9)
    best = client.get("recommend?proven=true").json()["candidate_id"]
    dry = client.post("launch", json={**WHY, "dry_run": True, "stages": [0.5, 1.0]}).json()
    assert (dry["launch"]["candidate"], dry["written"]) == (best, False)
    started = client.post("launch", json={**WHY, "stages": [0.5, 1.0]}).json()
    assert started["launch"]["who"] == "approver 0"
    refused(client.post("launch", json=WHY), 409, "is being launched")
    assert client.get("launch").json()["launch"]["outcome"] == "under way"
    assert client.post("launch/abort", "operator", json=WHY).is_success
    refused(client.post("launch/abort", "operator", json=WHY), 409, "no launch is under way")
    file = client.folder / "feed.yaml"
    file.write_text(file.read_text().replace("guard >= -5%", "guard >= -4%"))
    change = {"reason": "legal asks for it"}
    dry = client.post("goals", json={**change, "dry_run": True}).json()
    assert (dry["changed"], dry["written"]) == (True, False)
    assert client.post("goals", json=change).json()["written"]
    held = client.get("goals").json()["goals"]
    assert [goal["by"] for goal in held] == [None, "approver 0"]
    assert client.post("ask", "platform").is_success


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"rows": [', 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"rows": 7}', 422, "JSON object for each row"),
        (b'{"rows": []}', 422, "no row"),
        (b'{"rows": [7]}', 422, "row 0"),
        (b'{"rows": [{"round": 1}]}', 422, "missing"),
        (b'{"rows": [], "more": 1}', 422, "'more'"),
        (b'{"rows": [], "unknown": "what"}', 422, "unknown"),
        (b'{"rows": [' + b" " * 300_000 + b"]}", 413, "larger than 200000 bytes"),
        (json.dumps({"rows": [row(7, mean=float("nan"))]}).encode(), 422, "mean"),
        (json.dumps({"rows": [row(10**30)]}).encode(), 422, "round"),
        (json.dumps({"rows": [row(7, metric="\ud800")]}).encode(), 422, "unknown metric"),
        (json.dumps({"rows": [row(7, metric="<script>")]}).encode(), 422, "unknown metric"),
        (json.dumps({"rows": [row(7, count=-1.0)]}).encode(), 422, "negative"),
    ],
)
def test_a_bad_message_is_refused_as_a_whole(world, body, status, words):
    before = world.get("history?what=readings").json()["total"]
    kind = {"Content-Type": "application/json"}
    refused(world.post("tell", "platform", content=body, headers=kind), status, words)
    assert world.get("history?what=readings").json()["total"] == before


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"{}", 415),
        ("application/x-ndjson", b"round,candidate\n", 422),
        ("application/x-ndjson", json.dumps(row(7)).encode(), 422),  # cut within its last line
        ("application/x-ndjson", b"\x1f\x8b\x08" + b"\0" * 50, 422),
        ("application/x-ndjson", b"PAR1" + b"\0" * 50, 422),
        ("application/x-ndjson", b"{}\n\xff\n", 422),
    ],
)
def test_lines_that_are_not_lines_are_refused(world, kind, body, status):
    refused(world.post("tell", "platform", content=body, headers={"Content-Type": kind}), status)


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "a\x1b[31mb", "\u202eabc", "x" * 501, 7])
def test_a_reason_is_one_plain_sentence(world, reason):
    refused(world.post("switches/pause", json={"reason": reason}), 422, "reason")
    assert world.get("switches").json()["mode"] == "running"


def test_what_is_not_there_is_not_found(world):
    refused(world.get("/v1/studies/nothing/status"), 404, "no study 'nothing'")
    refused(world.get("/v1/nothing"), 404)
    refused(world.http.delete("/v1/studies", headers=bearer(world)), 405)
    refused(world.get("plan?round=99"), 409, "never planned")
    refused(world.get("explain?round=99"), 409, "never planned")
    refused(world.get("recommend?criterion=best"), 422, "criterion")


def bearer(client, role="viewer"):
    return {"Authorization": f"Bearer {client.secrets[role]}"}


def test_a_request_that_ends_within_its_body_changes_nothing(world):
    """The client goes away after half of a message."""
    before = world.get("history?what=readings").json()["total"]
    whole = json.dumps({"rows": [row(7, revision=9)]}).encode()
    messages = [
        {"type": "http.request", "body": whole[: len(whole) // 2], "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    secret = bearer(world, "platform")["Authorization"]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/studies/feed/tell", "query_string": b"",
        "headers": [(b"authorization", secret.encode()), (b"content-type", b"application/json")],
        "client": ("10.0.0.9", 1),
        "http_version": "1.1", "scheme": "http", "server": ("here", 80), "root_path": "",
    }  # fmt: skip
    asyncio.run(world.app(scope, receive, send))
    assert sent == []
    assert world.get("history?what=readings").json()["total"] == before


def test_a_body_that_does_not_arrive_is_given_up(tmp_path):
    tokens = TokenFile(tmp_path / "tokens.json")
    secret = tokens.add("p", "platform")
    app = create_app(places([study_file(tmp_path)]), tokens, body_seconds=0.05)
    sent = []

    async def receive():
        await asyncio.sleep(10)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/studies/feed/tell", "query_string": b"",
        "headers": [(b"authorization", f"Bearer {secret}".encode())], "client": ("10.0.0.9", 1),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408


def test_readings_are_never_answered_that_are_not_in_the_journal_at_its_path(fresh):
    """A backup is put back, or the file is moved away, while the server runs."""
    client = fresh()
    client.play(2)
    journal, copy = client.folder / "feed.db", client.folder / "copy.db"
    plan = client.post("ask", "platform").json()["plan"]
    rows = rows_of(reply(plan_of(plan)))
    shutil.copy(journal, copy)
    os.replace(copy, journal)
    remove_logs(journal)
    assert client.post("tell", "platform", json={"rows": rows}).status_code == 200
    with sqlite3.connect(journal) as db:
        query = "SELECT count(*) FROM readings WHERE round = ?"
        assert db.execute(query, (plan["round"],)).fetchone() == (len(rows),)
    older = client.folder / "older.db"
    shutil.copy(journal, older)
    client.post("ask", "platform")
    assert client.get("recommend").status_code == 200
    os.replace(journal, client.folder / "away.db")
    for path, how in (("ask", {}), ("tell", {"json": {"rows": rows}})):
        refused(client.post(path, "platform", **how), 503, "moved or removed")
    refused(client.get("recommend"), 503, "moved or removed")
    assert not journal.exists()
    os.replace(older, journal)  # of before the last plan
    remove_logs(journal)
    for path, how in (("ask", {}), ("tell", {"json": {"rows": rows}})):
        refused(client.post(path, "platform", **how), 409, "start this process again")


def test_too_many_requests_and_too_many_wrong_tokens(tmp_path):
    tokens = TokenFile(tmp_path / "tokens.json")
    secret = tokens.add("v", "viewer")
    with TestClient(create_app(places([study_file(tmp_path)]), tokens, rate=10.0)) as http:
        answers = [http.get("/healthz").status_code for _ in range(60)]
        assert set(answers) == {200, 429}
    with TestClient(create_app(places([study_file(tmp_path)]), tokens)) as http:
        wrong = {"Authorization": "Bearer hz_guess"}
        answers = [http.get("/v1/studies", headers=wrong).status_code for _ in range(25)]
        assert answers == [401] * 20 + [429] * 5
        right = {"Authorization": f"Bearer {secret}"}
        # A token has 256 random bits: what is refused is load and noise, not a search for it. So
        # others at the same address, as behind a proxy, are held up by nobody.
        assert http.get("/v1/studies", headers=right).status_code == 200
        wrong = {"token": "hz_guess"}
        assert http.post("/login", data=wrong).status_code == 429
        login = http.post("/login", data={"token": secret}, follow_redirects=False)
        assert login.status_code == 303


@given(st.lists(st.floats(0.0, 3.0), max_size=30))
def test_a_rate_lets_no_more_pass_than_it_says(waits):
    now = [0.0]
    rate, passed = Rate(2.0, 5.0, lambda: now[0]), 0
    for wait in waits:
        now[0] += wait
        passed += rate.take("somebody")
    assert passed <= 5 + 2 * now[0] + 1e-6
    assert rate.left("somebody else") == 5


def test_tokens_are_kept_hashed_private_and_read_again(tmp_path):
    path = tmp_path / "tokens.json"
    tokens = TokenFile(path)
    secret = tokens.add("anna", "approver")
    assert len(secret) > 40
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    other = TokenFile(path)
    assert other.caller(secret) == ("anna", "approver")
    assert other.caller(secret + "x") is None
    for name, role in (("anna", "viewer"), ("", "viewer"), ("a\nb", "viewer"), ("b", "king"),
                       ("x" * 65, "viewer")):  # fmt: skip
        with pytest.raises(hz.ConfigError):
            tokens.add(name, role)
    tokens.remove("anna")
    assert other.caller(secret) is None
    with pytest.raises(hz.ConfigError, match="no token named"):
        tokens.remove("anna")
    path.write_text('{"tokens": [{"name": 1}]}')
    with pytest.raises(hz.ConfigError, match="not a file of tokens"):
        other.caller(secret)


def test_every_error_has_a_status_that_is_the_clients_or_says_try_again():
    tree = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    for error in [*tree, ConflictError]:
        if not issubclass(error, errors.HyperZeroError):
            continue
        given = {errors.ExpressionError: ("a", "b", 0), errors.MissingExtraError: ("a", "b", "c")}
        raised = error(*given.get(error, ("a",)))
        assert status_of(raised) == 503 or 400 <= status_of(raised) < 500


@settings(max_examples=40)
@given(st.recursive(st.none() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(
    st.text(), s), max_leaves=10))  # fmt: skip
def test_any_value_is_json(value):
    json.loads(Json(value).body, parse_constant=pytest.fail)


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("gain"),
    st.integers(0, 9),
)  # fmt: skip
names = st.sampled_from(["round", "candidate", "metric", "count", "mean", "var", "revision", "x"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(names, values, max_size=8) | values, max_size=3))
def test_no_message_breaks_the_server(world, rows):
    body = json.dumps({"rows": rows}).encode()
    kind = {"Content-Type": "application/json"}
    answer = world.post("tell", "platform", content=body, headers=kind)
    assert answer.status_code in (200, 422), answer.text


def test_a_study_that_has_not_begun_is_no_error_and_one_that_was_lost_is(fresh):
    client = fresh()
    refused(client.get("status"), 404, "has not begun")
    glance = client.get("/v1/studies").json()["studies"][0]
    assert (glance["state"], glance["last_round"]) == ("WATCH", None)
    client.play(1)
    assert client.get("status").status_code == 200


def test_a_journal_that_was_lost_while_its_flags_are_in_service_is_not_a_new_study(fresh):
    client = fresh()
    client.play(1)
    assert client.post("switches/pause", json=WHY).status_code == 200  # it writes the flags
    (client.folder / "feed.db").unlink()
    again = fresh()
    refused(again.get("status"), 409, "the journal was lost")
    refused(again.post("ask", "platform"), 409, "the journal was lost")
    assert again.get("/v1/studies").json()["studies"][0]["state"] == "ACT"


def test_messages_name_files_without_their_folders(fresh):
    client = fresh()
    client.play(1)
    os.replace(client.folder / "feed.db", client.folder / "away.db")
    message = client.post("ask", "platform").json()["error"]["message"]
    assert "feed.db" in message
    assert str(client.folder) not in message
    assert client.folder.parent.name not in message


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("the journal sqlite:////srv/a b/../x/feed.db is gone", None),
        ("sqlite:////srv/x/feed.db", "sqlite:///feed.db"),
        ("--config /etc/hyperzero/tuning.yaml'", "--config tuning.yaml'"),
        ("'/etc/hyperzero/tuning.yaml'", "'tuning.yaml'"),
        ("postgresql+psycopg://u:***@host/db", "postgresql+psycopg://u:***@host/db"),
        ("postgresql://host/db is away", "postgresql://host/db is away"),
        ("1/2 of 3/4/5 in a/b/c", "1/2 of 3/4/5 in a/b/c"),
    ],
)
def test_what_is_shown_of_a_message(message, kept):
    result = shown(errors.JournalError(message))
    assert kept is None or result == kept
    assert "/srv/x" not in result


def test_readings_that_are_set_aside_are_listed_and_accepted(fresh):
    client = fresh()
    client.play(4)
    plan = client.post("ask", "platform").json()["plan"]
    rows = rows_of(reply(plan_of(plan)))
    for row in rows[-2:]:
        row["mean"] *= 1e6
    assert client.post("tell", "platform", json={"rows": rows}).status_code == 200
    groups = client.get("quarantine").json()["groups"]
    assert sum(group["readings"] for group in groups) == 2
    assert {group["metric"] for group in groups} == {"gain", "guard"}
    wrong = {**WHY, "metrics": ["guard"], "rounds": [plan["round"] + 1]}
    refused(client.post("quarantine/accept", "operator", json=wrong), 422, "none of the 2 readings")
    refused(client.post("quarantine/accept", "platform", json=WHY), 403, "nothing was changed")
    refused(client.post("quarantine/accept", "operator", json={"reason": ""}), 422)
    one = client.post("quarantine/accept", "operator", json={**WHY, "metrics": ["guard"]}).json()
    assert (one["accepted"], one["left"]) == (1, 1)
    assert client.post("quarantine/accept", "operator", json=WHY).json()["left"] == 0
    assert client.get("quarantine").json() == {"groups": []}
    made = client.get("history?kind=readings accepted").json()["rows"]
    assert [row["by"] for row in made] == ["operator 0"] * 2
