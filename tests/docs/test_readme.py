"""The README's examples run as they stand, and say what it says they say."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def run(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder
    )
    return done.stdout


def test_the_examples_run_and_the_first_prints_what_is_printed_below_it(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    printed = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1]
    assert run(blocks[0], tmp_path) == printed
    assert "base" in run(blocks[1], tmp_path)
    assert (tmp_path / "study.db").exists()


def test_the_tables_are_those_of_the_raw_numbers():
    done = subprocess.run(
        [sys.executable, "-m", "bench.tables", "--check"],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
