"""A launched candidate is promoted on the page and by the API, with the checks of the command."""

import re

import pytest
from support.served_study import ROLES, Client, study_file

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx2", reason="the client of Starlette's tests is not installed")
from starlette.testclient import TestClient

from hyperzero_torch.integrations.http.app import create_app
from hyperzero_torch.integrations.http.files import places
from hyperzero_torch.integrations.http.tokens import TokenFile

WHY = {"reason": "two good days"}
BUTTON = re.compile(r'<details class="action next" open><summary>([^<]+)</summary>')


@pytest.fixture
def client(tmp_path):
    tokens = TokenFile(tmp_path / "tokens.json")
    secrets = {role: tokens.add(f"{role} <b>", role) for role in ROLES}
    app = create_app(places([study_file(tmp_path)]), tokens)
    with TestClient(app, raise_server_exceptions=False) as http:
        yield Client(http, secrets)


def page(client, role):
    """The page of the study in a new session, and the key of its forms."""
    client.http.cookies.clear()
    client.http.post("/login", data={"token": client.secrets[role], "next": "/studies/feed"})
    text = client.http.get("/studies/feed").text
    return text, re.search(r'name="key" value="([^"]+)"', text)[1]


def refused(answer, status, words):
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


@pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")
def test_a_launched_candidate_becomes_the_base_on_the_page_and_by_the_api(client):
    client.play(9)
    refused(client.post("promote", json=WHY), 409, "nobody to promote")
    refused(client.post("promote", json={**WHY, "candidate": 1}), 409, "launch it first")
    terms = {"stages": [1.0], "keep_holdback": 0, "least_rounds": 1, "unproven": True}
    launched = client.post("launch", json={**WHY, **terms}).json()["launch"]
    refused(client.post("promote", json=WHY), 409, "of its launch; wait")
    assert "promote" not in page(client, "approver")[0].lower()
    for _ in range(20):
        client.play(1)
        if client.get("launch").json()["launch"]["outcome"] == "complete":
            break

    text, key = page(client, "operator")
    assert "Next: promote. operator &lt;b&gt; has the role operator, which may not." in text
    form = {"key": key, **WHY}
    assert client.http.post("/studies/feed/do/promote", data=form).status_code == 403
    text, key = page(client, "approver")
    assert BUTTON.findall(text) == ["Promote"]
    assert client.http.post("/studies/feed/do/promote", data={"key": key}).status_code == 422
    done = client.http.post("/studies/feed/do/promote", data={"key": key, **WHY})
    assert done.status_code == 200
    assert "Promote: it is in the journal, with your name and reason." in done.text
    assert "<title>feed.2" in done.text
    assert "Promote</summary>" not in done.text
    repeated = client.http.post("/studies/feed/do/promote", data={"key": key, **WHY})
    assert repeated.status_code == 409

    client.play(1)
    base = client.get("plan").json()["arms"][0]
    assert (base["candidate"], base["parameters"]) == (0, launched["parameters"])

    refused(
        client.post("promote", json={**WHY, "candidate": 1, "unlaunched": True, "name": "feed"}),
        409,
        "holds a study 'feed' already",
    )
    named = {**WHY, "candidate": 1, "unlaunched": True, "name": "a\nb"}
    refused(client.post("promote", json=named), 422, "control characters")
    answer = client.post("promote", json={**named, "name": "winter"}).json()
    assert (answer["successor"], answer["arms_not_carried"], answer["warnings"]) == (
        "winter",
        0,
        [],
    )
    status = client.get("status").json()
    assert status["study"] == "winter"
    rows = client.get("history").json()["rows"]
    assert [row["kind"] for row in rows][:1] == ["evidence carried"]
