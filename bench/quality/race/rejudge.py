"""Judge kept races again, by the current code's rule of recommendation.

    python -m bench.quality.race.run --keep FOLDER ...
    python -m bench.quality.race.rejudge FOLDER [--hours 10,20,30] [--workers 2]

A peer's plans depend on the deltas of its own arms, not on our surrogate, but its recommendation
comes from our rule. So the plans stay valid when the rule changes: each kept study is replayed
round by round, and its record gets the new results, for all rounds or for those named.
"""

from __future__ import annotations

import argparse
import json
import math
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from bench.processes import single_threaded_pool

from .run import RESULTS, path_of


def rejudge(path: Path, hours: frozenset[int] | None = None) -> dict[str, Any]:
    """The record of a kept race with this code's results, for these hours or for all.

    A column that the record did not have is NaN at the other hours.
    """
    import torch

    import hyperzero_torch as hz
    from hyperzero_torch.study.journal import MemoryJournal, Planned
    from hyperzero_torch.study.journal.state import unpack

    from .judge import Judge
    from .worlds import WORLDS

    torch.set_num_threads(1)
    kept = torch.load(path, weights_only=True)
    record: dict[str, Any] = json.loads(kept["record"])
    header, entries = unpack(kept["state"])
    world = WORLDS[record["world"]](record["seed"], record["dims"], record["traffic"])
    journal = MemoryJournal()
    journal.create(header, entries[:1])
    tuner = hz.Tuner(world.problem, journal=journal, study=header.study)
    judge = Judge(world)
    columns: dict[str, list[float]] = {}
    missing = [math.nan] * record["rounds"]
    start = 1
    for end, entry in enumerate(entries, 1):
        if isinstance(entry, Planned):
            journal.append(header.study, entries[start:end], after=start)
            start = end
            if hours is not None and entry.round not in hours:
                continue
            tuner.belief()  # reads what is new
            for name, value in judge(tuner, tuner.ask(entry.round)).items():
                columns.setdefault(name, list(record.get(name, missing)))[entry.round] = value
    return record | columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder given to race.run --keep")
    parser.add_argument("--hours", help="judge these alone, e.g. 10,20,30")
    parser.add_argument("--contenders", help="judge these alone")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    paths = sorted(options.folder.glob("*.pt"))
    if options.contenders:
        wanted = tuple(f"_{name}_" for name in options.contenders.split(","))
        paths = [p for p in paths if p.stem.rstrip("0123456789").endswith(wanted)]
    hours = frozenset(map(int, options.hours.split(","))) if options.hours else None
    fresh: dict[Path, dict[tuple[str, int], dict[str, Any]]] = {}
    with single_threaded_pool(options.workers) as pool:
        for num, done in enumerate(
            as_completed([pool.submit(rejudge, p, hours) for p in paths]), 1
        ):
            record = done.result()
            path = path_of(record["world"], record["dims"], record["traffic"], options.results)
            fresh.setdefault(path, {})[record["contender"], record["seed"]] = record
            print(f"{num:4d}/{len(paths)} {record['contender']} seed {record['seed']}", flush=True)
    options.results.mkdir(parents=True, exist_ok=True)
    for path, records in fresh.items():
        lines = path.read_text().splitlines() if path.exists() else []
        held = {(r["contender"], r["seed"]): r for r in map(json.loads, lines)}
        longer = {k for k, r in records.items() if r["rounds"] >= held.get(k, r)["rounds"]}
        merged = held | {key: records[key] for key in longer}
        path.write_text("".join(json.dumps(record) + "\n" for record in merged.values()))
        print(f"wrote {path.name}: {len(records)} of {len(merged)} records judged again")


if __name__ == "__main__":
    main()
