"""The fused kernels compile for Hopper without a card, and none spills at the blocks chosen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.device.registers import FILE, ROOT, table


def test_none_spills(tmp_path):
    pytest.importorskip("triton", "3.6", "needs Triton, which the extra test installs on Linux")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path / "cache")
    command = [sys.executable, "-m", "bench.device.registers", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / FILE).read_text())
    assert len(rows) == 12
    for row in rows:
        assert row["spilled"] == 0, row
        assert row["registers"] <= 255, row


def test_the_table_stands_on_the_page():
    assert table() in (Path(ROOT) / "docs/how-to/cuda.md").read_text()
