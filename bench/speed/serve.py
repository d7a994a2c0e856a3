"""How much does `hyperzero serve` carry, and how quickly does its page come?

    python -m bench.speed.serve [--only page] [--seconds 30] [--rounds 8760] [--viewers 50]

Three parts, each with a server in a process of its own that is ended by SIGKILL:

1. Messages of 100 rows over HTTP, by ``--senders`` connections for ``--seconds``, while a plan is
   asked for once in ``--every`` seconds. The server is killed while they pour in. Then the journal
   is read: an answered message that is not in it is lost.
2. A study of ``--rounds`` rounds, written by bench.long_study: seconds until the server has read
   it; seconds and bytes of a page with its style and script, for the first viewer after a change
   and for the next ones; and the time until Chromium has painted it, where one is installed.
3. Rounds by ask and tell, in turn without viewers and with ``--viewers`` of the live page.

Writes bench/results/serve.json, where parts that are not measured stay as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import hyperzero_torch as hz
from bench.long_study import write_rounds
from bench.reliability.year import WEEK
from bench.speed.server import Server, served
from hyperzero_torch.simulate.guardrail import GuardrailWorld
from hyperzero_torch.study.messages import MESSAGES

RESULTS = Path(__file__).parents[1] / "results" / "serve.json"
ROWS = 100
PLANNED = 3  # rounds that the tuner plans at the end of the long study
KEEP = 12 * WEEK  # rounds whose readings are not compacted


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

        server.once("GET", "switches")  # it has read the study
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
    begin = time.perf_counter()
    _play(tuner, world)  # the initial design
    write_rounds(tuner, world, rounds - 1 - PLANNED, KEEP)
    for _ in range(PLANNED):
        last = _play(tuner, world)
    written = time.perf_counter() - begin
    with served(folder, url) as server:
        begin = time.perf_counter()
        server.once("GET", "recommend")
        opened = time.perf_counter() - begin
        cookie = server.login()
        server.fetch("/studies/default", cookie)
        first, next_ = [], []
        for revision in range(1, 6):
            row = last | {"mean": last["mean"] * (1 + 1e-6 * revision), "revision": revision}
            server.once("POST", "tell", {"rows": [row]})
            # Readings are shown after some seconds; whoever asks for a plan changes the study.
            server.once("POST", "ask", {"round": rounds - 1})
            first.append(_paint(server, cookie)[0])  # the estimates are made once for each change
            paints = [_paint(server, cookie) for _ in range(3)]
            next_ += [seconds for seconds, _ in paints]
        painted = _painted(server, cookie, folder)
    sizes = paints[-1][1]
    return {
        "rounds": rounds,
        "candidates": tuner.history.num_candidates - 1,
        "written": written,
        "opened": opened,
        "after_a_change": median(first),
        "fetched": median(next_),
        "slowest_fetch": max(next_),
        "painted": painted,
        "bytes": sum(sizes),
        "page_bytes": sizes[0],
    }


def _play(tuner: hz.Tuner, world: GuardrailWorld) -> dict[str, Any]:
    """A round by the tuner, whose readings arrive at once; returns one of them."""
    messages = [delivery.readings for delivery in world.serve(tuner.ask())]
    tuner.tell(messages)
    fields = ("round", "candidate", "metric", "count", "mean", "var")
    return {name: getattr(messages[-1], name).tolist()[-1] for name in fields}


def _painted(server: Server, cookie: str, folder: Path) -> list[float]:
    """Seconds from the click until Chromium has painted the page; empty where there is none.

    The first is that of a browser that has not seen the page before.
    """
    from tests.support.browser import Browser, find

    if find() is None:
        return []
    name, _, value = cookie.partition("=")
    address = f"http://{server.host}:{server.port}"
    browser, seconds = Browser(folder / "browser"), []
    try:
        browser.call("Network.setCookie", name=name, value=value, url=address)
        browser.resize(1280)
        for number in range(10):
            browser.call("Page.navigate", url=f"{address}/studies/default?done=&n={number}")
            painted = "performance.getEntriesByName('first-contentful-paint').length"
            browser.until(f"location.search.endsWith('n={number}')&&{painted}>0")
            first = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            seconds.append(browser.value(first) / 1000)
    finally:
        browser.close()
    return seconds


def _paint(server: Server, cookie: str) -> tuple[float, list[int]]:
    """Seconds and bytes of the page of the study, its style and its script."""
    begin = time.perf_counter()
    parts = [server.fetch("/studies/default", cookie)]
    parts += [server.fetch(f"/static/{name}", cookie) for name in ("page.css", "live.js")]
    return time.perf_counter() - begin, [len(part) for part in parts]


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
    parser.add_argument("--only", choices=("tell", "page", "watched"), help="measure one part")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore", hz.TunerWarning)
    record: dict[str, Any] = {}
    if options.results.exists():
        record = json.loads(options.results.read_text())
    machine = {"load": os.getloadavg()[0], "cpus": os.cpu_count()}
    parts = {
        "tell": lambda folder: pour(folder, options.seconds, options.senders, options.every),
        "page": lambda folder: page(folder, options.rounds),
        "watched": lambda folder: watched(folder, options.viewers, options.watched_rounds),
    }
    for name, part in parts.items():
        if options.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            record[name] = part(Path(scratch)) | machine
        print(name, json.dumps({k: v for k, v in record[name].items() if k != "seconds"}))
    options.results.write_text(json.dumps(record, indent=1) + "\n")


def table(results: Path = RESULTS) -> str:
    """A line for each part that was measured."""
    record = json.loads(results.read_text())
    lines = ["| what | measured | wanted |", "| --- | --- | --- |"]
    if "tell" in record:
        tell = record["tell"]
        lines.append(
            f"| `tell` of {tell['rows']} rows over HTTP, {tell['senders']} senders "
            f"| {tell['messages_a_second']:.0f} messages a second | 200 |"
        )
        lines.append(
            f"| the server is killed while they arrive | {tell['lost']} of "
            f"{tell['recorded']:,} answered messages lost | 0 |"
        )
    if "page" in record:
        page_ = record["page"]
        after = page_["after_a_change"]
        study = f"{page_['rounds']:,} rounds and {page_['candidates']:,} candidates"
        lines += [
            *_first_paints(page_["painted"], study),
            f"| the page, its style and its script, fetched | {1000 * page_['fetched']:.0f} ms | |",
            f"| the same for the first viewer after a change | {after:.1f} s | |",
            f"| page, style and script together | {page_['bytes'] / 1000:.0f} KB | 300 KB |",
            f"| reading that study once, when the server starts | {page_['opened']:.0f} s | |",
        ]
    if "watched" in record:
        watched_ = record["watched"]
        lines.append(
            f"| a round while {watched_['viewers']} watch the page | "
            f"{100 * watched_['slower']:+.1f} % time | +5 % |"
        )
    loads = ", ".join(f"{name} {part['load']:.1f}" for name, part in record.items())
    cpus = max(part["cpus"] for part in record.values())
    lines += ["", f"Load average of the machine ({cpus} processors) before each part: {loads}."]
    return "\n".join(lines)


def _first_paints(painted: list[float], study: str) -> list[str]:
    if not painted:
        return [f"| first paint of a study of {study} | not measured | 1 s |"]
    first, slowest = 1000 * painted[0], 1000 * max(painted[1:])
    return [
        f"| first paint in Chromium of a study of {study} | {first:.0f} ms | 1 s |",
        f"| the same again, the slowest of {len(painted) - 1} | {slowest:.0f} ms | 1 s |",
    ]


if __name__ == "__main__":
    main()
