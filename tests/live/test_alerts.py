"""Notifications of a running study: a webhook on a real local server, metrics, health."""

import contextlib
import http.server
import json
import math
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from unittest import mock

import pytest
from support import small_study
from support.live_loop import HOUR, Platform, loop_of, make

import hyperzero_torch as hz
from hyperzero_torch.cli.app import main
from hyperzero_torch.cli.live import drive
from hyperzero_torch.live import TableUpdater
from hyperzero_torch.live.clock import SimulatedClock
from hyperzero_torch.live.endpoints import Health
from hyperzero_torch.live.events import SEVERITIES, Alert, alerts_of
from hyperzero_torch.live.observers import Observers
from hyperzero_torch.live.round import Round
from hyperzero_torch.live.series import Moments, state_of
from hyperzero_torch.live.telemetry import Telemetry
from hyperzero_torch.live.webhook import Webhook, body_of
from hyperzero_torch.study.config import AlertsConfig, LiveConfig, MonitoringConfig
from hyperzero_torch.study.config.monitoring import EVENTS
from hyperzero_torch.study.journal import Decision

DOCS = Path(__file__).parents[2] / "docs"
ALERT = Alert("stopped", "feed", 7, "Stopped: breaks guard", {"kind": "stopped"})


class Receiver:
    """A server that takes webhooks: it answers with the next of its statuses, the last for ever."""

    def __init__(self, *statuses, hang=False):
        self.statuses, self.bodies, self.methods, self.paths = list(statuses), [], [], []
        self.gate = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                receiver.bodies.append(json.loads(self.rfile.read(length)))
                receiver.paths.append(self.path)
                self._answer()

            def do_GET(self):
                self._answer()

            def _answer(self):
                receiver.methods.append(self.command)
                if hang:
                    receiver.gate.wait(30)
                several = len(receiver.statuses) > 1
                status = receiver.statuses.pop(0) if several else receiver.statuses[0]
                self.send_response(status)
                if status in (301, 302, 307):
                    self.send_header("Location", receiver.url + "elsewhere")
                self.send_header("Content-Length", "0")
                with contextlib.suppress(OSError):
                    self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook/secret/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


def live(**fields):
    return LiveConfig(exposures="e/*.parquet", events="v/*.parquet", table="t.json", **fields)


# --- the webhook --------------------------------------------------------------------------------


def test_an_alert_arrives_in_a_form_that_relays_take():
    with Receiver(200) as receiver:
        webhook = Webhook(receiver.url, routing_key="key")
        webhook.send(ALERT)
        webhook.close()
    (body,) = receiver.bodies
    assert (webhook.delivered, webhook.failed) == (1, 0)
    assert body["text"] == "[feed] stopped: Stopped: breaks guard"  # Slack
    assert body["event_action"] == "trigger"  # PagerDuty
    assert body["routing_key"] == "key"
    assert body["dedup_key"] == "hyperzero/feed/stopped/7"
    payload = body["payload"]
    assert payload["summary"]
    assert payload["source"] == "feed"
    assert payload["severity"] in ("critical", "error", "warning", "info")
    assert payload["custom_details"] == {
        "event": "stopped", "study": "feed", "round": 7, "kind": "stopped",
    }  # fmt: skip
    assert set(body_of(ALERT, "slack")) == {"text"}
    assert "text" not in body_of(ALERT, "pagerduty")
    assert "routing_key" not in body_of(ALERT, "pagerduty")


@pytest.mark.parametrize(
    ("statuses", "calls", "delivered"),
    [
        ((500, 429, 204), 3, 1),
        ((503, 503, 503, 503), 3, 0),
        ((400, 200), 1, 0),
        ((302, 200), 1, 0),
    ],
)
def test_what_may_pass_is_tried_again(statuses, calls, delivered, caplog):
    with Receiver(*statuses) as receiver:
        webhook = Webhook(receiver.url, attempts=3, first_wait=0.01)
        webhook.send(ALERT)
        webhook.close(20)
    assert receiver.methods == ["POST"] * calls
    assert (webhook.delivered, webhook.failed) == (delivered, 1 - delivered)
    assert bool(caplog.records) == (not delivered)
    assert "secret" not in caplog.text


def test_a_failure_holds_up_no_later_alert():
    with Receiver(404, 200) as receiver:
        webhook = Webhook(receiver.url, attempts=1)
        webhook.send(ALERT)
        webhook.send(ALERT)
        webhook.close(20)
    assert (webhook.delivered, webhook.failed) == (1, 1)


def test_a_server_that_hangs_or_is_not_there_holds_up_nothing(caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = Webhook(f"http://127.0.0.1:{free.getsockname()[1]}/", attempts=1, timeout=1)
    with Receiver(200, hang=True) as receiver:
        hanging = Webhook(receiver.url, attempts=1, timeout=60)
        begin = time.monotonic()
        for _ in range(400):
            hanging.send(ALERT)
            nobody.send(ALERT)
        assert time.monotonic() - begin < 5
        hanging.close(0.5)
        nobody.close(10)
        assert time.monotonic() - begin < 25
    # One is still in the air, and those that nobody took count as failed.
    assert hanging.failed >= 399
    assert nobody.delivered == 0
    assert "was dropped" in caplog.text


def test_texts_are_cut_and_plain():
    alert = Alert("error", "feed", 0, "\x1b[31m" + "x" * 10_000)
    body = body_of(alert)
    assert "\x1b" not in body["text"]
    assert len(body["text"]) < 2100
    assert len(body["payload"]["summary"]) <= 1024


# --- its configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "name either webhook"),
        ({"webhook": "http://a", "webhook_env": "B"}, "name either webhook"),
        ({"webhook": "ftp://secret.example/x"}, "begins with https"),
        ({"webhook": "https://"}, "begins with https"),
        ({"webhook": "https://a b/secret"}, "begins with https"),
        ({"webhook": "https://a:99999/secret"}, "begins with https"),
        ({"webhook": "https://a", "events": ["stoped"]}, "events"),
        ({"webhook": "https://a", "attempts": 0}, "attempts"),
        ({"webhook": "https://a", "timeout": 0}, "timeout"),
        ({"webhook": "https://a", "format": "mail"}, "format"),
    ],
)
def test_a_webhook_that_cannot_be_called_is_refused(fields, says):
    with pytest.raises(hz.ConfigError, match=says):
        AlertsConfig(**fields)


def test_the_url_can_come_from_the_environment_and_is_shown_nowhere():
    config = AlertsConfig(webhook_env="HOOK", routing_key_env="KEY")
    with pytest.raises(hz.ConfigError, match="HOOK, which is not set"):
        Webhook.of(config, {})
    with pytest.raises(hz.ConfigError, match="HOOK must be a URL") as caught:
        Webhook.of(config, {"HOOK": "secret", "KEY": "k"})
    assert "secret" not in str(caught.value)
    with pytest.raises(hz.ConfigError, match="KEY, which is not set"):
        Webhook.of(config, {"HOOK": "https://a/secret"})
    assert "secret" not in repr(live(alerts={"webhook": "https://a/secret"}))


@pytest.mark.parametrize("address", ["", "a b", "1.2.3.4:5", "http://a", "-", "a_b"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(hz.ConfigError, match="address"):
        MonitoringConfig(address=address)


# --- events -------------------------------------------------------------------------------------


def test_every_event_has_a_severity_and_a_place_in_the_page():
    assert set(SEVERITIES) == set(EVENTS)
    page = (DOCS / "how-to" / "monitoring.md").read_text()
    assert all(f"`{event}`" in page for event in EVENTS)


def test_events_come_from_the_journal_and_from_the_round():
    plan = make().ask()
    kinds = [
        *("stopped", "withdrawn", "sample ratio", "set aside", "drift", "quarantined", "missing"),
        *("paused", "stopped by hand", "launch decided", "warehouse", "retired", "clock"),
    ]
    decisions = [Decision(3, kind, f"why {kind}") for kind in kinds]
    alerts = alerts_of("feed", Round(4, plan, True, 0, (), 0.0), decisions)
    assert [a.event for a in alerts] == [
        "stopped", "stopped", "suspect", "excluded", "drift", "quarantined", "missing", "switch",
        "stopped", "launch", "error",
    ]  # fmt: skip
    assert [a.round for a in alerts] == [3] * 11
    (alert,) = alerts_of("feed", Round(4, plan, False, 0, ("fenced",), 0.0), [])
    assert (alert.event, alert.text) == ("not_served", "The plan of round 4 is not served: fenced")
    (alert,) = alerts_of("feed", Round(4, None, False, 0, (), 0.0), [])
    assert alert.event == "no_plan"


def test_a_loop_tells_what_is_asked_for_and_nothing_of_before(tmp_path):
    """A stop by hand and a platform that fails, sent once each; old decisions are not sent."""
    tuner, platform = make(), Platform()
    steps = loop_of(tuner, platform).run()
    next(steps)
    tuner.study.pause("before", "me")
    tuner.study.resume("before", "me")
    with Receiver(200) as receiver:
        config = live(alerts={"webhook": receiver.url, "events": ["stopped", "not_served"]})
        loop = loop_of(tuner, platform, SimulatedClock(1_000_000.0 + HOUR))
        observers = Observers(loop, config)
        rounds = loop.run()
        observers.see(next(rounds))
        tuner.study.stop(1, "empty feeds", "me")
        tuner.study.pause("not asked for", "me")
        observers.see(next(rounds))
        platform.trouble["apply"] = [ConnectionError("down")] * 9
        observers.see(next(rounds))
        assert observers.close() == 0
    texts = [body["text"] for body in receiver.bodies]
    assert len(texts) == 2
    assert "empty feeds" in texts[0]
    assert "is not served" in texts[1]
    assert "down" in texts[1]


def test_a_webhook_that_fails_costs_no_round_and_is_shown(capsys):
    tuner, platform = make(), Platform()
    tuner.ask(0)
    with Receiver(500, hang=True) as receiver:
        config = live(alerts={"webhook": receiver.url, "attempts": 1, "timeout": 0.2})
        platform.trouble["apply"] = [ConnectionError("down")] * 9
        drive(tuner, loop_of(tuner, platform), 4, None, None, config)
    assert len(platform.applied) == 1
    assert "alerts could not be delivered to the webhook" in capsys.readouterr().err


# --- metrics and health -------------------------------------------------------------------------


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def values_of(text):
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_metrics_and_health_are_served_where_the_study_file_says(tmp_path):
    pytest.importorskip("prometheus_client")
    tuner, platform = make(), Platform()
    clock = SimulatedClock(400_000 * HOUR)
    table = TableUpdater(tmp_path / "t.json")
    platform.apply = table.apply
    loop = loop_of(tuner, platform, clock)
    config = live(monitoring={"address": "127.0.0.2", "port": 0})
    observers = Observers(loop, config)
    assert re.fullmatch(r"http://127\.0\.0\.2:\d+/metrics", observers.url)
    base = observers.url.removesuffix("/metrics")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(base.replace("0.0.2", "0.0.1"), timeout=5)
    assert get(base + "/healthz")[0] == 200
    assert get(base + "/readyz") == (
        503, '{"ok": false, "reasons": ["no round has ended yet"]}\n',
    )  # fmt: skip
    steps = loop.run()
    observers.see(next(steps))
    assert get(base + "/readyz") == (200, '{"ok": true, "reasons": []}\n')
    values = values_of(get(observers.url)[1])
    # The loop began with the round, and a lease lasts two.
    assert values["hyperzero_lease_left_seconds"] == 2 * HOUR
    assert math.isnan(values["hyperzero_evidence_age_seconds"])
    platform.trouble["apply"] = []
    observers.see(next(steps))
    platform.apply = lambda plan: 1 / 0
    observers.see(next(steps))
    status, text = get(base + "/readyz")
    assert status == 503
    assert "the plan of round 2 is not served" in text
    clock.time += 1.5 * HOUR
    assert "the lease of what is served has run out" in get(base + "/readyz")[1]
    values = values_of(get(observers.url)[1])
    assert values["hyperzero_lease_left_seconds"] < 0
    assert get(base + "/healthz")[0] == 200
    clock.time += 3 * HOUR
    assert get(base + "/healthz")[0] == 503
    assert get(base + "/nothing")[0] == 404


def test_a_port_that_is_taken_is_refused_and_says_what_to_do():
    pytest.importorskip("prometheus_client")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(hz.ConfigError, match="name another address or port"):
            Telemetry("a").serve(taken.getsockname()[1])
    with pytest.raises(hz.ConfigError, match="cannot be served"):
        Telemetry("a").serve(0, "192.0.2.1")  # of documentation: on no machine


def test_series_are_what_the_journal_says():
    """Counted by hand, from what was done to the study."""
    tuner = small_study.make()
    small_study.play(tuner, 4)
    tuner.study.stop([1, 2], "why", "me")
    tuner.study.readmit([2], "why", "me")
    tuner.study.set_aside([0, 3], "why")
    state = state_of(tuner.history, tuner.config)
    by_guardrails = [d for d in tuner.decisions if d.kind == "stopped"]
    assert state == {
        "stops": 2 + sum(len(d.details["candidates"]) for d in by_guardrails),
        "stopped_candidates": len(tuner.stopped),
        "excluded_rounds": 2,
        "quarantined_readings": 0,
        "suspect_rounds": 0,
        "drift_alarms": 0,
        "horizon_rounds_left": 72 - 4,
    }
    assert 1 in tuner.stopped
    assert 2 not in tuner.stopped


def test_the_age_of_evidence_grows_while_nothing_arrives():
    pytest.importorskip("prometheus_client")
    tuner, platform = make(), Platform()
    clock = SimulatedClock(400_000 * HOUR)
    loop = loop_of(tuner, platform, clock)
    steps = loop.run()
    for _ in range(3):
        next(steps)
    # In the third hour readings of the second arrived, which had just ended.
    assert loop.moments().evidence == 400_000 * HOUR + 2 * HOUR
    assert set(loop.moments().successes) == {"journal", "platform", "warehouse"}
    platform.trouble["collect"] = [ConnectionError("down")] * 99
    before = loop.moments().successes["warehouse"]
    next(steps)
    assert loop.moments().successes["warehouse"] == before
    assert loop.moments().successes["journal"] > before
    telemetry = Telemetry("a", clock)
    telemetry.observe_study({}, Moments(clock.time - 5, clock.time + 7, {"journal": 3.0}))
    clock.time += 100
    values = values_of(telemetry._text().decode())
    assert values["hyperzero_evidence_age_seconds"] == 105
    assert values["hyperzero_lease_left_seconds"] == -93
    assert values["hyperzero_last_success_timestamp_seconds"] == 3


def test_a_study_without_a_lease_is_ready():
    health = Health(SimulatedClock(), HOUR)
    plan = make().ask()
    health.observe(Round(0, plan, True, 0, (), 0.0), Moments(math.nan, math.inf, {}))
    assert health.why_not_ready() == []


def test_the_example_rules_name_series_that_exist():
    pytest.importorskip("prometheus_client")
    page = (DOCS / "how-to" / "monitoring.md").read_text()
    with Receiver(200) as receiver:
        webhook = Webhook(receiver.url)
        telemetry = Telemetry("a", webhook=webhook)
        telemetry.observe_study({}, Moments(0.0, 0.0, {"journal": 1.0}))
        exported = set(re.findall(r"^# TYPE (\w+)", telemetry._text().decode(), re.M))
        webhook.close()
    named = set(re.findall(r"hyperzero_\w+", page))
    assert len(named) > 12
    assert named <= exported, named - exported


# --- the command --------------------------------------------------------------------------------

STUDY = """
study: feed
journal: sqlite:///study.db
parameters:
  - {kind: float, name: a, low: 0.0, high: 1.0}
base: {a: 0.4}
metrics: [gain]
objective: gain
traffic: {approval_above: 0.01, num_draws: 40, initial_candidates: 4}
live:
  exposures: exposures/*.parquet
  events: events/*.parquet
  table: table.json
  round_seconds: 0.5
  monitoring: {address: 127.0.0.1, port: 0}
  alerts: {webhook_env: HOOK, events: [no_plan, not_served, switch]}
"""


def command(*words):
    """The exit code of a command in this process."""
    with pytest.raises(SystemExit) as caught, mock.patch("sys.argv", ["hyperzero", *words]):
        main()
    return caught.value.code or 0


def test_the_command_tells_the_webhook(tmp_path, monkeypatch, capfd):
    pytest.importorskip("prometheus_client")
    pytest.importorskip("duckdb")
    (tmp_path / "tuning.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOOK", raising=False)
    assert command("run", "-c", "tuning.yaml", "--rounds", "1") == 3
    assert "HOOK, which is not set" in capfd.readouterr().err
    assert command("run", "-c", "tuning.yaml", "--dry-run") == 3
    assert [p.name for p in tmp_path.iterdir()] == ["tuning.yaml"]
    capfd.readouterr()
    with Receiver(200) as receiver:
        monkeypatch.setenv("HOOK", receiver.url)
        assert command("run", "-c", "tuning.yaml", "--rounds", "1") == 0
    assert "metrics on http://127.0.0.1:" in capfd.readouterr().err
    (body,) = receiver.bodies
    assert body["payload"]["class"] == "switch"  # the first plan waits for approval
    assert receiver.paths == ["/hook/secret/"]
