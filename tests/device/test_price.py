"""Rows at full size without a card: no array of N x n is ever whole, and the page says computed."""

import json

from bench.device.launches import ROOT
from bench.device.price import FILE, table

ROWS = json.loads((ROOT / "bench/results" / FILE).read_text())
BY_NAME = {(row["question"].split(",")[0], row["who"]): row for row in ROWS}


def test_the_table_stands_on_the_page_as_computed():
    page = (ROOT / "docs/how-to/cuda.md").read_text()
    _, _, rest = page.partition("## Computed, not measured")
    assert table() in rest


def test_large_work_is_done_in_tiles_and_50000_candidates_fit():
    whole = 4 * 1_000_000 * 1000 * 8  # one (metrics, N, n) array: 30 GiB
    for name in ("1 joint draw", "mean and variance"):
        for who in ("float64", "mixed"):
            assert BY_NAME[name, who]["peak"] < whole / 4
            assert BY_NAME[name, who]["launches"] < 2000
    assert BY_NAME["exact Gaussian process", "float64"]["peak"] < 60 * 2**30
