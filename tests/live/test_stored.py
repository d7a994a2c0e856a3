"""Tables in GrowthBook's payload, in Unleash (a local HTTP server) and in a store of one's own."""

import contextlib
import errno
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import patch

import pytest

import hyperzero_torch as hz
from hyperzero_torch.live import (
    Assignment,
    GrowthBookFile,
    StoredTableUpdater,
    StudyUpdater,
    Terms,
    UnleashFeature,
    assign,
)
from hyperzero_torch.live.build import updater_of
from hyperzero_torch.study.config import LiveConfig
from hyperzero_torch.testing import UpdaterContract, example_plan

SHARES = (0.2, 0.5, 0.3)
TOKEN = "*:production.secret-of-unleash"
OURS = Terms("feed", "e1", 100.0, 7300.0)


class Unleash(ThreadingHTTPServer):
    """What the Admin API does with the strategies of one feature."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.strategies, self.calls, self.status = [], [], None
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def table(self):
        """What an application's SDK gets as the payload of its variant."""
        if not self.strategies:
            return None
        return json.loads(self.strategies[0]["variants"][0]["payload"]["value"])


class Handler(BaseHTTPRequestHandler):
    def answer(self):
        server, place = self.server, "/api/admin/projects/default/features/value-model/"
        place += "environments/production/strategies"
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        server.calls.append(self.command)
        status, reply = server.status or 200, server.strategies
        if self.headers["Authorization"] != TOKEN:
            status = 401
        elif not self.path.startswith(place):
            status = 404
        elif status == 302:
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
            return
        elif status == 200 and self.command == "POST":
            server.strategies.append({**body, "id": "s-1"})
            reply = server.strategies[-1]
        elif status == 200 and self.command == "PUT":
            (at,) = (i for i, s in enumerate(server.strategies)
                     if self.path == f"{place}/{s['id']}")  # fmt: skip
            reply = server.strategies[at] = {**body, "id": server.strategies[at]["id"]}
        text = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def running():
    server = Unleash()
    yield server
    server.stop()


@pytest.fixture
def unleash(running):
    running.strategies, running.calls, running.status = [], [], None
    return running


def served_by(table, users, base):
    if table is None:
        return [Assignment(0, None, dict(base), "no table") for _ in users]
    return [assign(table, user) for user in users]


class TestGrowthBookKeepsTheLaws(UpdaterContract):
    num_users = 5_000

    def make_updater(self, tmp_path):
        return StoredTableUpdater(GrowthBookFile(tmp_path / "features.json"))

    def served(self, updater, users, base):
        path = updater.store.path
        features = json.loads(path.read_text())["features"] if path.exists() else {}
        return served_by(features.get("value-model", {}).get("defaultValue"), users, base)

    def broken(self, updater):
        return patch("os.replace", side_effect=OSError(errno.ENOSPC, "No space left on device"))


class TestUnleashKeepsTheLaws(UpdaterContract):
    num_users = 5_000

    @pytest.fixture(autouse=True)
    def _server(self, unleash):
        self.server = unleash

    def make_updater(self, tmp_path):
        return StoredTableUpdater(UnleashFeature(self.server.url, TOKEN))

    def served(self, updater, users, base):
        return served_by(self.server.table(), users, base)

    @contextlib.contextmanager
    def broken(self, updater):
        self.server.status = 503
        yield
        self.server.status = None


class Memory:
    """The smallest store: two methods."""

    def __init__(self):
        self.text = None

    def __str__(self):
        return "the store in memory"

    def read(self):
        return None if self.text is None else json.loads(self.text)

    def write(self, table):
        self.text = json.dumps(table, allow_nan=False)


class TestAStoreOfOnesOwnKeepsTheLaws(UpdaterContract):
    num_users = 5_000

    def make_updater(self, tmp_path):
        return StoredTableUpdater(Memory())

    def served(self, updater, users, base):
        return served_by(updater.store.read(), users, base)


@pytest.fixture(params=["growthbook", "unleash", "own"])
def store(request, tmp_path, unleash):
    if request.param == "growthbook":
        return GrowthBookFile(tmp_path / "features.json")
    return Memory() if request.param == "own" else UnleashFeature(unleash.url, TOKEN)


def test_tables_are_fenced_and_have_a_lease(store):
    writer = StoredTableUpdater(store).on_behalf_of(OURS)
    assert isinstance(writer, StudyUpdater)
    assert writer.owner() is None
    writer.apply(example_plan(7, SHARES))
    assert writer.owner()["round"] == 7
    table = store.read()
    assert {assign(table, f"u{i}", lambda: 200.0).round for i in range(30)} == {7}
    assert {assign(table, f"u{i}", lambda: 7300.0).candidate for i in range(30)} == {0}
    with pytest.raises(hz.FencedError, match="is older"):
        writer.apply(example_plan(6, SHARES))
    other = StoredTableUpdater(store).on_behalf_of(Terms("another", "e9", 100.0, 7300.0))
    for call in (lambda: other.apply(example_plan(8, SHARES)), other.withdraw):
        with pytest.raises(hz.FencedError, match="another"):
            call()
    assert store.read() == table
    other.take_over()
    assert store.read()["round"] is None
    with pytest.raises(hz.FencedError):
        writer.apply(example_plan(9, SHARES))


def test_unleash_gets_one_strategy_and_no_needless_calls(unleash):
    writer = StoredTableUpdater(UnleashFeature(unleash.url + "/", TOKEN))
    writer.apply(example_plan(1, SHARES))
    writer.apply(example_plan(1, SHARES))
    writer.apply(example_plan(2, SHARES))
    assert [call for call in unleash.calls if call != "GET"] == ["POST", "PUT"]
    (strategy,) = unleash.strategies
    assert strategy["name"] == "flexibleRollout"
    assert strategy["parameters"]["rollout"] == "100"
    (variant,) = strategy["variants"]
    assert (variant["weight"], variant["payload"]["type"]) == (1000, "json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": "wrong"}, "401: the token is refused"),
        ({"feature": "unknown"}, "404: there is no such feature"),
        ({"status": 500}, "HTTP status 500"),
        ({"status": 302}, "HTTP status 302"),
        ({"strategies": [{"id": "x", "name": "default"}]}, "strategies of others"),
        ({"strategies": [{"id": "x", "variants": []}, {"id": "y", "variants": []}]}, "of others"),
        ({"strategies": "no list"}, "of others"),
    ],
)
def test_what_unleash_refuses_is_one_error_without_the_token(unleash, change, message):
    unleash.status = change.get("status")
    unleash.strategies = change.get("strategies", [])
    before = json.dumps(unleash.strategies)
    token = change.get("token", TOKEN)
    feature = UnleashFeature(unleash.url, token, feature=change.get("feature", "value-model"))
    with pytest.raises(hz.ConfigError, match=message) as caught:
        StoredTableUpdater(feature).apply(example_plan(1, SHARES))
    assert token not in str(caught.value) + repr(feature)
    assert json.dumps(unleash.strategies) == before
    assert set(unleash.calls) == {"GET"}


def test_an_unleash_that_is_not_there():
    gone = Unleash()
    url = gone.url
    gone.stop()
    with pytest.raises(hz.ConfigError, match="cannot be reached"):
        StoredTableUpdater(UnleashFeature(url, TOKEN, timeout=2.0)).apply(example_plan(1, SHARES))


@pytest.mark.parametrize(
    "change",
    [{"url": "ftp://x"}, {"url": ""}, {"token": ""}, {"token": "a\nb"}, {"feature": " "},
     {"project": ""}, {"environment": "a\0"}, {"timeout": 0.0}, {"timeout": float("nan")}],
)  # fmt: skip
def test_arguments_of_unleash_that_cannot_be(change):
    given = {"url": "http://u", "token": TOKEN} | change
    with pytest.raises(hz.ConfigError) as caught:
        UnleashFeature(given.pop("url"), given.pop("token"), **given)
    assert TOKEN not in str(caught.value)


def test_other_features_of_growthbook_are_kept(tmp_path):
    path = tmp_path / "features.json"
    others = {"dark": {"defaultValue": False, "rules": [{"force": True, "coverage": 0.5}]}}
    path.write_text(json.dumps({"status": 200, "features": others}))
    writer = StoredTableUpdater(GrowthBookFile(path))
    writer.apply(example_plan(1, SHARES))
    writer.withdraw()
    document = json.loads(path.read_text())
    assert document["status"] == 200
    assert document["features"]["dark"] == others["dark"]
    with pytest.raises(hz.ConfigError, match="belongs to others"):
        StoredTableUpdater(GrowthBookFile(path, "dark")).apply(example_plan(1, SHARES))
    for text in ("{", "[]", "{}", '{"features": 3}'):
        path.write_text(text)
        with pytest.raises(hz.ConfigError, match="it was not changed"):
            writer.apply(example_plan(2, SHARES))
        assert path.read_text() == text
    with pytest.raises(hz.ConfigError, match="key is a text"):
        GrowthBookFile(path, "")


def test_growthbooks_own_sdk_serves_the_table(tmp_path):
    growthbook = pytest.importorskip("growthbook")
    path = tmp_path / "features.json"
    StoredTableUpdater(GrowthBookFile(path)).apply(example_plan(5, SHARES))
    features = json.loads(path.read_text())["features"]
    for user in ("u1", "u2"):
        sdk = growthbook.GrowthBook(attributes={"id": user}, features=features)
        table = sdk.get_feature_value("value-model", None)
        assert assign(table, user).round == 5
        sdk.destroy()


LOGS = {"exposures": "e/*.parquet", "events": "v/*.parquet"}


def test_a_study_file_names_these_platforms(tmp_path, unleash):
    live = LiveConfig(**LOGS, growthbook="features.json", flag="ours")
    updater_of(live, tmp_path).apply(example_plan(1, SHARES))
    assert "ours" in json.loads((tmp_path / "features.json").read_text())["features"]
    assert live.place == "features.json"
    live = LiveConfig(**LOGS, unleash={"url": unleash.url, "token_env": "UNLEASH_TOKEN"})
    updater_of(live, tmp_path, {"UNLEASH_TOKEN": TOKEN}).apply(example_plan(1, SHARES))
    assert unleash.table()["round"] == 1
    assert (live.file, live.place) == (None, "feature 'value-model' of Unleash")
    with pytest.raises(hz.ConfigError, match="UNLEASH_TOKEN is not set"):
        updater_of(live, tmp_path, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one"),
        ({"growthbook": "f.json", "table": "t.json"}, "exactly one"),
        ({"growthbook": "f.json", "flag": "a/b"}, "no slash"),
        ({"growthbook": "f.json", "hash": "sha256"}, "is for a table"),
        ({"unleash": {"url": "ftp://u", "token_env": "T"}}, "must be a URL"),
        ({"unleash": {"url": "http://u"}}, "token_env"),
    ],
)
def test_study_files_that_cannot_be(given, message):
    with pytest.raises(hz.ConfigError, match=message):
        LiveConfig(**LOGS, **given)
