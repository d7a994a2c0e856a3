"""How much does `hyperzero serve` carry, and how quickly does its page come?

    python -m bench.speed.serve [--seconds 30] [--senders 64] [--rounds 8760] [--viewers 50]

Three parts, each with a server in a process of its own that is ended by SIGKILL:

1. Messages of 100 rows over HTTP, by ``--senders`` connections for ``--seconds``, while a plan is
   asked for once in ``--every`` seconds. The server is killed while they pour in. Then the journal
   is read: an answered message that is not in it is lost.
2. A study of ``--rounds`` rounds, filled as bench.reliability.year fills it: seconds until the
   server has read it, seconds and bytes of the first page with its style and script.
3. Rounds by ask and tell, in turn without viewers and with ``--viewers`` of the live page.

Writes bench/results/serve.json.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import hyperzero_torch as hz
from bench.reliability.year import WEEK, fill
from hyperzero_torch.integrations.http.tokens import TokenFile
from hyperzero_torch.simulate.guardrail import GuardrailWorld
from hyperzero_torch.study.messages import MESSAGES

RESULTS = Path(__file__).parents[1] / "results" / "serve.json"
ROWS = 100


class Server:
    """A server over a journal, and the token of a platform that is also a viewer."""

    def __init__(self, folder: Path, url: str) -> None:
        tokens = folder / "tokens.json"
        self.secret = TokenFile(tokens).add("bench", "platform")
        code = "from hyperzero_torch.cli import main; main()"
        command = [sys.executable, "-c", code, "serve", "--journal", url, "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--tokens", str(tokens), "--rate", "1000000"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        place = re.search(r"http://([\d.]+):(\d+)/", line)
        assert place, line
        self.host, self.port = place[1], int(place[2])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=300)

    def call(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = None,
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        headers |= {} if key is None else {"Idempotency-Key": key}
        content = None if body is None else json.dumps(body)
        connection.request(method, f"/v1/studies/default/{path}", content, headers)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        assert answer.status == 200, document
        return document

    def login(self) -> str:
        """The cookie of a browser."""
        connection = self.connect()
        form = urllib.parse.urlencode({"token": self.secret})
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/login", form, kind)
        answer = connection.getresponse()
        answer.read()
        return str(answer.headers["Set-Cookie"]).partition(";")[0]

    def fetch(self, path: str, cookie: str) -> bytes:
        connection = self.connect()
        connection.request("GET", path, headers={"Cookie": cookie})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content[:200]
        return content

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextlib.contextmanager
def served(folder: Path, url: str) -> Iterator[Server]:
    server = Server(folder, url)
    try:
        yield server
    finally:
        server.kill()


def pour(folder: Path, seconds: float, senders: int, every: float) -> dict[str, Any]:
    """Messages a second, and those that were answered and are not in the journal."""
    url = f"sqlite:///{folder / 'pour.db'}"
    space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Float("b", 0.0, 1.0)])
    problem = hz.Problem(space, {"a": 0.4, "b": 0.6}, ["gain", "guard"], "gain", ["guard >= -5%"])
    config = hz.TunerConfig(initial_candidates=ROWS // 2 - 1, srm_alpha=None)
    tuner = hz.Tuner(problem, config, url)
    # Each sender corrects the readings of a round of its own, so that all rows of all are new.
    arms = [tuner.ask().candidate_ids for _ in range(senders)]
    answered: dict[str, float] = {}  # seconds by message
    recorded: set[str] = set()  # those with new rows
    asked: list[float] = []
    over = threading.Event()
    with served(folder, url) as server:

        def send(round_: int) -> None:
            connection, number = server.connect(), 0
            while not over.is_set():
                number += 1
                key = f"{round_}: {number}"
                rows = [
                    {
                        "round": round_, "candidate": c, "metric": m, "count": 100.0 + number,
                        "mean": 10.0 + 0.01 * c, "var": 1.0, "revision": number,
                    }
                    for c in arms[round_]
                    for m in ("gain", "guard")
                ]  # fmt: skip
                begin = time.perf_counter()
                try:
                    answer = server.call(connection, "POST", "tell", {"rows": rows}, key)
                except (OSError, http.client.HTTPException):  # it was killed
                    return
                answered[key] = time.perf_counter() - begin
                if answer["new"] == len(rows):
                    recorded.add(key)

        def plan_rounds() -> None:
            connection = server.connect()
            while not over.wait(every):
                begin = time.perf_counter()
                with contextlib.suppress(OSError, http.client.HTTPException):
                    server.call(connection, "POST", "ask", {})
                    asked.append(time.perf_counter() - begin)

        server.call(server.connect(), "GET", "switches")  # it has read the study
        threads = [threading.Thread(target=send, args=(r,)) for r in range(senders)]
        threads.append(threading.Thread(target=plan_rounds))
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        done = len(answered)
        taken = time.perf_counter() - begin
        server.kill()  # while they pour in
        over.set()
        for thread in threads:
            thread.join()
    history = tuner.study.sync()
    facts = [d.trace.facts["messages"] for d in history.decisions if d.kind == MESSAGES]  # type: ignore[union-attr]
    there = {str(fact[1]) for several in facts for fact in several}
    times = sorted(answered.values())
    return {
        "messages_a_second": done / taken,
        "rows": 2 * len(arms[0]),
        "senders": senders,
        "median": median(times),
        "slowest": times[-1],
        "plans": len(asked),
        "median_ask": median(asked) if asked else None,
        "answered": len(answered),
        "recorded": len(recorded),
        "lost": len(recorded - there),
        "chain_is_whole": bool(tuner.study.verify()),
    }


def page(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds and bytes of the first page of a long study."""
    world = GuardrailWorld(0)
    url = f"sqlite:///{folder / 'page.db'}"
    tuner = hz.Tuner(world.problem, hz.TunerConfig(), url)
    for round_ in range(rounds):
        last = round_ >= rounds - 3
        plan = tuner.ask(round_) if last or not round_ else fill(tuner, round_)
        for delivery in world.serve(plan):
            tuner.tell(delivery.readings)
        if (round_ + 1) % WEEK == 0:
            tuner.study.compact(12 * WEEK)
    with served(folder, url) as server:
        begin = time.perf_counter()
        server.call(server.connect(), "GET", "recommend")
        opened = time.perf_counter() - begin
        cookie = server.login()
        server.fetch("/studies/default", cookie)  # the estimates are made once for each change
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            parts = [server.fetch("/studies/default", cookie)]
            parts += [server.fetch(f"/static/{name}", cookie) for name in ("page.css", "live.js")]
            seconds.append(time.perf_counter() - begin)
    return {
        "rounds": rounds,
        "candidates": tuner.history.num_candidates - 1,
        "opened": opened,
        "first_paint": median(seconds),
        "bytes": sum(map(len, parts)),
        "page_bytes": len(parts[0]),
    }


def watched(folder: Path, viewers: int, rounds: int) -> dict[str, Any]:
    """Seconds of rounds with and without viewers, in turn."""
    world = GuardrailWorld(1)
    url = f"sqlite:///{folder / 'watched.db'}"
    hz.Tuner(world.problem, hz.TunerConfig(), url).ask()
    seconds: dict[int, list[float]] = {0: [], viewers: []}
    with served(folder, url) as server:
        connection, cookie = server.connect(), server.login()
        for number in range(rounds):
            for watching in seconds:
                with _viewers(server, cookie, watching):
                    begin = time.perf_counter()
                    made = server.call(connection, "POST", "ask", {})["plan"]
                    server.call(connection, "POST", "tell", {"rows": _rows(made, world, number)})
                    seconds[watching].append(time.perf_counter() - begin)
    without, with_them = median(seconds[0]), median(seconds[viewers])
    return {"viewers": viewers, "seconds": seconds, "slower": with_them / without - 1}


@contextlib.contextmanager
def _viewers(server: Server, cookie: str, number: int) -> Iterator[None]:
    connections = [server.connect() for _ in range(number)]
    for connection in connections:
        connection.request("GET", "/studies/default/events", headers={"Cookie": cookie})
        connection.getresponse().fp.readline()
    yield
    for connection in connections:
        connection.close()


def _rows(plan: dict[str, Any], world: Any, number: int) -> list[dict[str, Any]]:
    return [
        {
            "round": plan["round"], "candidate": arm["candidate"], "metric": metric,
            "count": max(2.0, 1e5 * arm["share"]), "mean": 10.0 + 0.001 * (number % 7), "var": 4.0,
        }
        for arm in plan["arms"]
        for metric in world.problem.metrics
    ]  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--senders", type=int, default=64)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two plans")
    parser.add_argument("--rounds", type=int, default=8760, help="of the long study")
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--watched-rounds", type=int, default=20)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore", hz.TunerWarning)
    record: dict[str, Any] = {"load": os.getloadavg(), "cpus": os.cpu_count()}
    parts = {
        "tell": lambda folder: pour(folder, options.seconds, options.senders, options.every),
        "page": lambda folder: page(folder, options.rounds),
        "watched": lambda folder: watched(folder, options.viewers, options.watched_rounds),
    }
    for name, part in parts.items():
        with tempfile.TemporaryDirectory() as scratch:
            record[name] = part(Path(scratch))
        print(name, json.dumps({k: v for k, v in record[name].items() if k != "seconds"}))
    options.results.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
