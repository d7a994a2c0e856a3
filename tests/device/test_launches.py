"""What a default ``ask`` costs a card, in launches and waits: limits, and a file of results."""

import json

from bench.device.launches import FILE, ROOT

# Wanted; the counts themselves stand in the results.
MOST_LAUNCHES, MOST_WAITS = 1500, 20


def test_a_default_ask_starts_few_kernels_and_seldom_waits(on_card):
    counts = on_card("bench.device.launches")[0]
    assert counts["launches"] <= MOST_LAUNCHES
    assert counts["waits"] <= MOST_WAITS
    assert counts["atomics"] == 0
    stored = json.loads((ROOT / "bench/results" / FILE).read_text())
    page = (ROOT / "docs/how-to/cuda.md").read_text()
    assert f"starts {stored['launches']:,} kernels" in page
    assert f"waits for the card {stored['waits']} times" in page
    assert f"{stored['uploads']} small tensors" in page
    if counts["torch"] == stored["torch"]:  # another PyTorch may take other steps
        for name in ("launches", "waits"):
            assert counts[name] <= stored[name], "measure again: python -m bench.device.launches"
