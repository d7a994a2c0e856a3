"""Writes ``vectors.json`` from the package: what a reader in any language must answer.

python examples/assignment/make_vectors.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hyperzero_torch.live import TableUpdater, Terms, assign, bucket, read_table, takes_part
from hyperzero_torch.testing import example_plan

HERE = Path(__file__).parent
UNITS = (
    "u1", "17", "-3", "9007199254740993", "O'Brien", 'say "hi"', "a/b", " two  spaces ", "点击率",
    "é", "e\u0301", "👩‍🚀", "00000000-0000-0000-0000-000000000011", "x" * 300,
)  # fmt: skip
SALTS = ("value-model", "s", "zürich")
ROUNDS = (0, 17, 2**53 - 1)
BEGIN, END = 1_800_000_000.0, 1_800_007_200.0


def vectors() -> dict[str, Any]:
    """Places, who takes part, and one table with what its users are served."""
    places = [
        {"unit": unit, "round": str(n), "salt": salt, "place": bucket(unit, n, salt, "sha256")}
        for salt in SALTS
        for n in ROUNDS
        for unit in UNITS
    ]
    parts = [
        {"unit": unit, "share": s, "salt": salt, "part": takes_part(unit, s, salt, "sha256")}
        for salt in SALTS
        for s in (0.1, 0.5, 1.0)
        for unit in UNITS
    ]
    table = _table()
    users = ["", *UNITS, *(f"user-{i}" for i in range(200))]
    times = [(user, BEGIN + 60.0) for user in users]
    times += [("u1", BEGIN - 1.0), ("u1", BEGIN), ("u1", END - 0.001), ("u1", END)]
    served = [(user, now, assign(table, user, lambda now=now: now)) for user, now in times]
    rows = [
        {"unit": user, "now": now, "candidate": got.candidate, "round": got.round}
        for user, now, got in served
    ]
    return {"places": places, "parts": parts, "table": table, "assignments": rows}


def _table() -> dict[str, Any]:
    plan = example_plan(17, (0.3, 0.0, 0.45, 0.25), experiment_share=0.6)
    terms = Terms("feed", "an-epoch", BEGIN, END)
    with tempfile.TemporaryDirectory() as folder:
        updater = TableUpdater(Path(folder) / "table.json", hash="sha256").on_behalf_of(terms)
        updater.apply(plan)
        return read_table(updater.path)


def text() -> str:
    """The file's content."""
    return json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (HERE / "vectors.json").write_text(text(), encoding="utf-8")
