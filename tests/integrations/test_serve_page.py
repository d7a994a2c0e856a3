"""The live page in a real browser, and without one: verdict first, actions with a reason."""

import contextlib
import html
import json
import re
import threading
import time

import pytest
import torch
from support.browser import Browser, find
from support.served_study import ROLES, Client, plan_of, rows_of, serving, study_file
from support.small_study import make, play, reply

import hyperzero_torch as hz
from hyperzero_torch.live.build import updater_of
from hyperzero_torch.live.clock import SystemClock
from hyperzero_torch.live.loop import Collected, Loop
from hyperzero_torch.live.opening import open_study

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx2", reason="the client of Starlette's tests is not installed")

GROUND = "getComputedStyle(document.body).backgroundColor"
EVIL = "<script>alert(1)</script>\x1b[31m\u202e"


class Platform:
    """A warehouse that answers for the last plan that was served."""

    def __init__(self, tuner):
        self.tuner = tuner

    def collect(self, as_of, planned, missing=()):
        rounds = [r for r in planned if r < as_of]
        return Collected(
            hz.Readings.concat([reply(self.tuner.study.plan(r)) for r in rounds])
            if rounds
            else None
        )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if find() is None:
        pytest.skip("no Chromium is installed (apt: chromium)")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def go(browser, address):
    browser.call("Page.navigate", url=address)
    browser.until("document.readyState==='complete'&&document.querySelector('main')!==null")


def click(browser, selector):
    assert browser.value(f"document.querySelector({selector!r})!==null"), selector
    browser.value(f"document.querySelector({selector!r}).click()")


def write(browser, selector, text):
    browser.value(f"document.querySelector({selector!r}).value={text!r}")


def flags_of(folder):
    return json.loads((folder / "feed.json").read_text())["flags"]["value-model"]


@pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")
def test_a_click_on_pause_holds_the_flags_of_a_running_loop(browser, tmp_path):
    from hyperzero_torch.integrations.http.files import places

    file = study_file(tmp_path)
    tuner = open_study(file, create=True)
    live = hz.StudyConfig.from_file(file).live
    loop = Loop(tuner, updater_of(live, tmp_path), Platform(tuner), SystemClock())
    for round_ in range(4):
        assert loop.step(round_).applied
    with serving(places([file]), tmp_path) as (address, secrets):
        browser.errors.clear()
        browser.requests.clear()
        browser.resize(390)
        go(browser, f"{address}/studies/feed")
        assert browser.value("location.pathname") == "/login"
        write(browser, "[name=token]", secrets["operator"])
        click(browser, "main button")
        browser.until("location.pathname==='/studies/feed'&&document.readyState==='complete'")
        # The verdict and the reason are there without a click; pause takes two.
        assert browser.value("document.querySelector('main').firstElementChild.id") == "verdict"
        assert browser.value("document.querySelector('.sentence').textContent") == (
            tuner.verdict().sentence
        )
        assert browser.value("document.documentElement.scrollWidth") <= 390
        browser.value("window.stays=true")
        assert loop.step(4).applied
        browser.until("document.querySelector('#verdict').textContent.includes('Round 4')")
        assert browser.value("window.stays")  # it came by itself, without loading the page again
        click(browser, "form[action$='/do/pause']")  # nothing: a form is no button
        form = "form[action$='/do/pause']"
        browser.value(
            f"document.querySelector({form!r}).closest('details').querySelector('summary').click()"
        )
        write(browser, f"{form} [name=reason]", "a release until Friday")
        click(browser, f"{form} button")
        browser.until("document.querySelector('.done')!==null")
        assert "paused by operator" in browser.value(
            "document.querySelector('#verdict').textContent"
        )
        before = flags_of(tmp_path)
        assert loop.step(5).applied
        after = flags_of(tmp_path)
        plan, last = tuner.study.plan(5), tuner.study.plan(4)
        assert (plan.candidate_ids, plan.shares) == (last.candidate_ids, last.shares)
        assert tuner.history.plans[5].trace.held == "paused"
        assert len(before["variants"]) == len(after["variants"]) == len(plan)
        browser.until("document.querySelector('#verdict').textContent.includes('Round 5')")
        # What is next is open already: resume takes one click and a reason.
        resume = "details.next[open] form[action$='/do/resume']"
        browser.until(f"document.querySelector({resume!r})!==null")
        write(browser, f"{resume} [name=reason]", "it is out")
        click(browser, f"{resume} button")
        browser.until(
            "(document.querySelector('.done')||{textContent:''}).textContent.includes('Resume')"
        )
        by = [(d.kind, d.reason, d.trace.by) for d in tuner.decisions if hasattr(d.trace, "by")]
        assert ("paused", "a release until Friday", "operator") in by
        assert ("resumed", "it is out", "operator") in by
        for width, dark in ((320, True), (1280, False)):
            browser.resize(width)
            theme = "dark" if dark else "light"
            scheme = [{"name": "prefers-color-scheme", "value": theme}]
            browser.call("Emulation.setEmulatedMedia", features=scheme)
            go(browser, f"{address}/studies/feed")
            assert browser.value("document.documentElement.scrollWidth") <= width
            ground = browser.value(GROUND)
            assert ground == ("rgb(16, 18, 21)" if dark else "rgb(245, 246, 248)")
        fields = "Array.from(document.querySelectorAll('input:not([type=hidden]),select'))"
        assert browser.value(f"{fields}.filter(f=>!f.closest('label')).length") == 0
        assert browser.errors == []
        assert {url.split("/")[2] for url in browser.requests if "://" in url} == {address[7:]}
        assert browser.value("document.getElementById('fault').textContent") == ""
    browser.until("document.getElementById('fault').textContent.includes('does not answer')")
    browser.call("Page.navigate", url="about:blank")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A study whose every name is an attack, with decisions to page through."""
    from starlette.testclient import TestClient

    from hyperzero_torch.integrations.http.app import create_app
    from hyperzero_torch.integrations.http.files import places
    from hyperzero_torch.integrations.http.tokens import TokenFile

    folder = tmp_path_factory.mktemp("served")
    space = hz.SearchSpace([hz.Choice(EVIL[:25] + "p", [EVIL[:25], "b"]), hz.Float("a", 0.0, 1.0)])
    base = {EVIL[:25] + "p": "b", "a": 0.5}
    problem = hz.Problem(space, base, ["<i>gain", "guard"], "`<i>gain`", ["guard >= -5%"])
    url = f"sqlite:///{folder}/evil.db"
    evil = hz.Tuner(problem, make().config, url, EVIL)
    plan = evil.ask()
    mean = 10 + torch.rand(len(plan), 2).double()
    count = 2000 * torch.tensor(plan.shares).unsqueeze(-1).expand_as(mean)
    evil.tell(hz.Readings(plan.round, plan.candidate_ids, count, mean, mean))
    evil.ask()
    for number in range(60):
        evil.study.note("note", f"{EVIL} number {number}")
    tokens = TokenFile(folder / "tokens.json")
    secrets = {role: tokens.add(f"{role} <b>", role) for role in ROLES}
    app = create_app(places([study_file(folder)], [url]), tokens)
    with TestClient(app, raise_server_exceptions=False) as http:
        client = Client(http, secrets)
        client.play(3)
        client.tokens = tokens
        yield client


@pytest.fixture
def login(world):
    """Begins a session for a role."""

    def begin(role):
        world.http.cookies.clear()
        answer = world.http.post(
            "/login", data={"token": world.secrets[role], "next": "/studies/feed"},
            follow_redirects=False,
        )  # fmt: skip
        assert (answer.status_code, answer.headers["location"]) == (303, "/studies/feed")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        return world.http

    yield begin
    world.http.cookies.clear()


def key_of(page):
    return re.search(r'name="key" value="([^"]+)"', page)[1]


def evil_of(world):
    return world.get("/v1/studies").json()["studies"][1]["id"]


def test_all_names_are_escaped_and_control_characters_gone(world, login):
    http = login("approver")
    evil = evil_of(world)
    filtered = f"/studies/{evil}/journal?words=%3Cscript%3E%22&kind=%3Ci%3E"
    places = ("/", f"/studies/{evil}", f"/studies/{evil}/journal", f"/studies/{evil}/actions")
    pages = [http.get(place).text for place in (*places, filtered)]
    for page in pages:
        assert "<script>alert" not in page
        assert "<i>gain" not in page
        assert "<b>" not in re.sub(r"<b>[\d.]+ %</b>", "", page)
        assert "\x1b" not in page
        assert "\u202e" not in page
    assert html.escape("<script>alert(1)</script>") in pages[0]
    scripts = re.findall(r"<script[^>]*>", "".join(pages))
    assert set(scripts) <= {'<script src="/static/live.js" defer>'}


def test_the_page_works_without_javascript_and_loads_nothing_from_elsewhere(world, login):
    http = login("viewer")
    answer = http.get("/studies/feed")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r'(?:src|href|action)="(?:https?:)?//', answer.text)
    assert not re.search(r"\sstyle=|\son\w+=", answer.text)
    parts = ("verdict", "actions", "health", "traffic")
    order = [answer.text.index(f'id="{name}"') for name in parts]
    assert order == sorted(order)
    assert re.search("which may not|may read only", answer.text)
    assert 'action="/studies/feed/do/' not in answer.text
    assert len(answer.content) < 100_000
    for path in re.findall(r'(?:src|href)="(/[^"]*)"', answer.text):
        assert http.get(path).is_success, path
    mark = http.get("/static/page.css").headers["etag"]
    assert http.get("/static/page.css", headers={"If-None-Match": mark}).status_code == 304
    for call in ("/v1/studies/{study}/tell", "/v1/studies/{study}/switches/pause"):
        assert call in http.get("/docs").text


def test_traffic_and_p_best_are_what_the_plan_and_the_draws_say(world, login):
    page = login("viewer").get("/studies/feed").text
    tuner = open_study(world.tokens.path.parent / "feed.yaml")
    plan = tuner.study.plan(2)
    assert f"control <b>{100 * plan.control_share:.1f} %</b> (1 arm)" in page
    groups = re.findall(r"(control|recommended|proven|exploring) <b>([\d.]+) %</b>", page)
    assert sum(float(share) for _, share in groups) == pytest.approx(100, abs=0.3)
    slots = tuner.history.plans[2].slots
    best = max(range(len(slots)), key=lambda i: slots[i])
    drawn = f"candidate {plan.candidate_ids[best]} <b>{100 * slots[best] / sum(slots):.1f} %</b>"
    assert drawn in page
    assert len(re.findall(r"<time datetime=", page)) >= 4  # a date beside every round


def test_what_is_broken_comes_with_what_to_do(world, login):
    plan = world.post("ask", "platform").json()["plan"]
    rows = rows_of(reply(plan_of(plan)))
    rows[-1]["mean"] *= 1e6
    world.post("tell", "platform", json={"rows": rows})
    page = login("viewer").get("/studies/feed").text
    verdict = page.partition('id="actions"')[0]
    assert "Quarantine: 1 reading is set aside as absurd" in verdict
    assert "Next: " in verdict
    assert "accept them, or send them corrected" in verdict
    http = login("operator")
    shown = http.get("/studies/feed").text
    assert "Accept the readings that are set aside" in shown
    assert "Accept the readings" not in login("viewer").get("/studies/feed").text
    glances = login("viewer").get("/").text
    assert glances.index("<i>ACT</i>") < glances.index("</li>")  # who needs somebody comes first
    sent = [{**row, "revision": 1, "mean": 10.0} for row in rows]
    assert world.post("tell", "platform", json={"rows": sent}).is_success
    assert world.get("status").json()["quarantined"] == 0
    assert "Accept the readings" not in http.get("/studies/feed").text


def test_readings_that_are_set_aside_are_accepted_with_a_click(world, login):
    plan = world.post("ask", "platform").json()["plan"]
    rows = rows_of(reply(plan_of(plan)))
    rows[-1]["mean"] *= 1e6
    world.post("tell", "platform", json={"rows": rows})
    http = login("operator")
    form = {"key": key_of(http.get("/studies/feed").text), "reason": "a sale day"}
    done = http.post("/studies/feed/do/accept", data=form)
    assert done.status_code == 200
    assert world.get("status").json()["quarantined"] == 0
    last = world.get("history?kind=readings accepted").json()["rows"][-1]
    assert last["reason"].startswith("a sale day (1 reading counts")
    assert last["by"].startswith("operator")
    again = http.post("/studies/feed/do/accept", data=form)
    assert again.status_code in (409, 422)
    assert "none of the 0 readings" in again.text


def test_a_lease_that_has_run_out_is_a_card_and_the_verdict(tmp_path):
    from starlette.testclient import TestClient

    from hyperzero_torch.integrations.http.app import create_app
    from hyperzero_torch.integrations.http.files import places
    from hyperzero_torch.integrations.http.tokens import TokenFile

    file = study_file(tmp_path)
    tuner = open_study(file, create=True)
    live = hz.StudyConfig.from_file(file).live
    loop = Loop(tuner, updater_of(live, tmp_path), Platform(tuner), SystemClock())
    for round_ in range(3):
        assert loop.step(round_).applied
    tokens = TokenFile(tmp_path / "tokens.json")
    secret = tokens.add("anna", "viewer")

    def page():
        with TestClient(create_app(places([file]), tokens)) as http:
            http.post("/login", data={"token": secret})
            return http.get("/studies/feed").text

    def lease(begin, end):
        flags = json.loads((tmp_path / "feed.json").read_text())
        stamp = flags["flags"]["value-model"]["metadata"]
        stamp |= {"valid_from": time.time() + begin, "valid_until": time.time() + end}
        (tmp_path / "feed.json").write_text(json.dumps(flags))

    lease(-1.0, 3600.0)
    assert "round 2 is served until " in page()
    lease(-3600.0, -1.0)
    verdict = page().partition('id="actions"')[0]
    assert "The lease of the plan has run out (round 2, until " in verdict
    assert "the control alone is served" in verdict
    (tmp_path / "feed.json").write_text("{")
    assert "what is served cannot be read" in page()


def test_the_journal_is_filtered_and_comes_in_pages(world, login):
    http, place = login("viewer"), f"/studies/{evil_of(world)}/journal"
    first = http.get(f"{place}?kind=note").text
    assert "number 59" in first
    assert "number 9<" not in first
    older = html.unescape(re.search(r'<a href="([^"]+)">Older</a>', first)[1])
    second = http.get(older).text
    assert "number 9<" in second
    assert "Newer" in second
    assert "Older" not in second
    found = http.get(f"{place}?words=NUMBER+17").text
    assert found.count("number 17") == 1
    assert "Nothing." in http.get(f"{place}?words=nowhere").text


def test_a_form_needs_its_session_its_key_its_host_and_a_reason(world, login):
    http = login("operator")
    key = key_of(http.get("/studies/feed").text)
    place, good = "/studies/feed/do/pause", {"key": key, "reason": "a release"}
    wrong = [
        ({"data": {"reason": "x"}}, 403),
        ({"data": {"key": "other", "reason": "x"}}, 403),
        ({"data": good, "headers": {"Origin": "https://evil.example"}}, 403),
        ({"data": good, "headers": {"Origin": "null"}}, 403),
        ({"data": good, "headers": {"Sec-Fetch-Site": "cross-site"}}, 403),
        ({"data": good, "headers": {"Sec-Fetch-Site": "same-site"}}, 403),
        ({"data": {"key": key, "reason": " "}}, 422),
        ({"data": {"key": key, "reason": "a\nb"}}, 422),
        ({"json": good}, 415),
        (
            {
                "content": b"\xff\xfe",
                "headers": {"Content-Type": "application/x-www-form-urlencoded"},
            },
            400,
        ),
    ]
    for how, status in wrong:
        assert http.post(place, **how).status_code == status, how
    assert http.post("/studies/feed/do/nothing", data=good).status_code == 404
    stop = {**good, "candidate": "x"}
    assert http.post("/studies/feed/do/stop", data=stop).status_code == 422
    pin = {**good, "candidate": "1", "percent": "nan"}
    assert http.post("/studies/feed/do/pin", data=pin).status_code == 409
    for field, wrong_text, stated in (
        ("percent", "abc", "the share is a number of percent, as 5 or 2.5, got &#x27;abc&#x27;"),
        ("reason", "a\nb", "the reason: holds control characters"),
    ):
        answer = http.post("/studies/feed/do/pin", data={**pin, field: wrong_text})
        assert answer.status_code == 422
        assert stated in answer.text
    assert http.post("/studies/feed/do/approve", data=good).status_code == 403
    # The API takes no changes by a cookie, which other pages' requests would carry too.
    answer = http.post("/v1/studies/feed/switches/pause", json={"reason": "x"})
    assert answer.status_code == 403
    assert world.get("switches").json()["mode"] == "running"


def test_the_second_operator_sees_what_the_first_did(world, login):
    http = login("operator")
    late = key_of(http.get("/studies/feed").text)
    world.post("switches/pause", json={"reason": "first"})
    answer = http.post("/studies/feed/do/pause", data={"key": late, "reason": "second"})
    assert answer.status_code == 409
    assert "paused already, by approver &lt;b&gt; (first)" in answer.text
    assert "The study is paused by approver &lt;b&gt;" in answer.text
    done = http.post("/studies/feed/do/resume", data={"key": late, "reason": "over"})
    assert done.status_code == 200
    assert "Resume: it is in the journal" in done.text
    assert world.get("history").json()["rows"][-1]["by"] == "operator <b>"


def test_a_session_ends_with_its_token_and_by_logging_out(world, login):
    http = login("viewer")
    assert http.post("/logout", data={"key": "x"}).status_code == 403
    http.post("/logout", data={"key": key_of(http.get("/studies/feed").text)})
    gone = http.get("/studies/feed", follow_redirects=False)
    assert (gone.status_code, gone.headers["location"]) == (303, "/login?next=/studies/feed")
    secret = world.tokens.add("guest", "viewer")
    assert http.post("/login", data={"token": secret, "next": "//evil.example"}).url.path == "/"
    world.tokens.remove("guest")
    assert http.get("/", follow_redirects=False).status_code == 303
    assert http.post("/login", data={"token": "hz_x"}).status_code == 401
    assert "log in at /login" in world.get("/studies/feed").json()["error"]["message"]


def test_fifty_viewers_cost_one_rendering(world, monkeypatch):
    """All get the same text, made once for each change."""
    import asyncio

    from hyperzero_torch.integrations.http import events
    from hyperzero_torch.integrations.http.page import views

    access = world.http.app.state.studies["feed"]
    made = []

    def render(snapshot):
        made.append(snapshot.version)
        return views.parts(snapshot)

    async def watch():
        viewers = events.Viewers({"feed": access}, 0.05)
        streams = [viewers.view("feed", 0, render) for _ in range(50)]
        first = await asyncio.gather(*(anext(s) for s in streams))
        assert set(first) == {"retry: 3000\n\n"}
        texts = await asyncio.gather(*(anext(s) for s in streams))
        assert len(set(texts)) == 1
        data = json.loads(texts[0].partition("data: ")[2])
        assert set(data["parts"]) == {"verdict", "health", "traffic", "best", "rounds", "recent"}
        await asyncio.sleep(0.3)
        assert len(made) == 1
        ended = viewers.view("feed", 0, render, lambda: False)  # a session that is over
        assert [text async for text in ended] == ["retry: 3000\n\n"]
        for stream in streams:
            await stream.aclose()
        await viewers.close()

    world.http.portal.call(watch)


def test_a_page_whose_journal_is_away_says_that_it_is_out_of_date(world, monkeypatch):
    """Also to who comes while it is away; and the present state once it is back."""
    from hyperzero_torch.integrations.http import events
    from hyperzero_torch.integrations.http.page import views

    monkeypatch.setattr(events, "_BACK_OFF", 0.02)
    access = world.http.app.state.studies["feed"]
    snapshot, is_away = access.snapshot, [True]

    async def read():
        if is_away[0]:
            raise hz.JournalError("the database <b>is away")
        return await snapshot()

    async def watch():
        version = (await snapshot()).version
        viewers = events.Viewers({"feed": access}, 0.02)
        monkeypatch.setattr(access, "snapshot", read)
        first = viewers.view("feed", version, views.parts)
        assert await anext(first) == "retry: 3000\n\n"
        message = await anext(first)
        assert message.startswith("event: fault\ndata: ")
        assert "out of date: the database <b>is away" in message
        second = viewers.view("feed", version, views.parts)
        assert [await anext(second), await anext(second)] == ["retry: 3000\n\n", message]
        is_away[0] = False
        for stream in (first, second):
            assert (await anext(stream)).startswith(f"id: {version}\n")
            await stream.aclose()
        await viewers.close()

    world.http.portal.call(watch)
    is_away[0] = True
    monkeypatch.setattr(access, "snapshot", read)
    facts = world.get("/v1/studies").json()["studies"][0]
    assert (facts["state"], facts["sentence"]) == ("ACT", "the database <b>is away")


def test_a_study_whose_loop_has_died_is_for_a_person(world, login, monkeypatch):
    """Its journal does not change any more: only the clock shows it."""
    import datetime as dt

    from hyperzero_torch.integrations.http import studies
    from hyperzero_torch.tuner import status

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return dt.datetime.now(tz) + dt.timedelta(hours=14)

    world.post("ask", "platform")
    before = world.get("status").json()
    assert before["health"][-1] == {
        "name": "Planning", "state": "PASS", "sentence": "rounds are planned in time", "advice": "",
    }  # fmt: skip
    for module in (studies, status):
        monkeypatch.setattr(module, "datetime", Later)
    after = world.get("status").json()
    sentence = "No round was planned for 14 hours; one is due every 60 minutes"
    assert after["verdict"]["sentence"] == sentence
    assert (after["verdict"]["action"], after["verdict"]["state"]) == ("repair", "ACT")
    page = login("viewer").get("/studies/feed").text
    assert page.index(sentence) < page.index('id="actions"')
    rows = world.get("/v1/studies").json()["studies"]
    assert [row["state"] for row in rows] == ["ACT", "ACT"]


def test_a_study_that_cannot_be_read_says_so_on_the_page(tmp_path):
    from starlette.testclient import TestClient

    from hyperzero_torch.integrations.http.app import create_app
    from hyperzero_torch.integrations.http.files import places
    from hyperzero_torch.integrations.http.tokens import TokenFile

    tokens = TokenFile(tmp_path / "tokens.json")
    secret = tokens.add("anna", "viewer")
    with TestClient(create_app(places([study_file(tmp_path)]), tokens)) as http:
        http.post("/login", data={"token": secret})
        assert "has not begun" in http.get("/").text
        assert "has not begun" in http.get("/studies/feed").text


def test_a_signal_ends_it_at_once_and_quietly_though_somebody_watches(tmp_path):
    import http.client
    import signal
    import subprocess
    import sys

    from hyperzero_torch.integrations.http.tokens import TokenFile

    secret = TokenFile(tmp_path / "tokens.json").add("v", "viewer")
    play(open_study(study_file(tmp_path), create=True), 1)
    code = "from hyperzero_torch.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "-c", "feed.yaml", "--port", "0"]
    server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        place = re.search(r"http://([\d.:]+)/", server.stderr.readline())[1]
        viewer = http.client.HTTPConnection(place)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        viewer.request("POST", "/login", f"token={secret}", form)
        answer = viewer.getresponse()
        answer.read()
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        viewer.request("GET", "/studies/feed/events", headers={"Cookie": cookie})
        watched = viewer.getresponse()
        assert watched.readline() == b"retry: 3000\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.wait()
        server.stderr.close()
        viewer.close()


def test_what_is_recorded_is_there_after_a_kill(tmp_path):
    """A server that is killed while messages pour in has every message that it answered."""
    import subprocess
    import sys
    import urllib.request

    from hyperzero_torch.integrations.http.tokens import TokenFile

    file = study_file(tmp_path)
    secret = TokenFile(tmp_path / "tokens.json").add("p", "platform")
    tuner = open_study(file, create=True)
    play(tuner, 1)
    rows = rows_of(reply(tuner.ask()))
    code = "from hyperzero_torch.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "-c", "feed.yaml", "--port", "0"]
    server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+/", server.stderr.readline())[0]
        answered = []

        def send(number):
            body = json.dumps({"rows": [{**r, "revision": number} for r in rows]}).encode()
            request = urllib.request.Request(
                f"{address}v1/studies/feed/tell", body,
                {"Authorization": f"Bearer {secret}", "Content-Type": "application/json",
                 "Idempotency-Key": str(number)},
            )  # fmt: skip
            with contextlib.suppress(OSError), urllib.request.urlopen(request) as answer:
                assert json.load(answer)["new"]
                answered.append(number)

        def pour():
            for number in range(1, 500):
                send(number)

        thread = threading.Thread(target=pour)
        thread.start()
        while len(answered) < 15:
            time.sleep(0.01)
    finally:
        server.kill()
        server.wait()
        server.stderr.close()
    thread.join()
    num = max(answered)
    table = tuner.study.sync().tables[1]
    assert int(table.revision.max()) >= num
    assert tuner.study.verify()
