"""The README is one page, and its table is the raw numbers'. Its examples run with the pages'."""

import re
import sys
from pathlib import Path

import pytest

from bench import tables

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_one_page():
    assert len(README.encode()) <= 8000
    (table,) = re.findall(r"(?:^\|.*\n)+", README, re.M)
    assert table.count("\n") - 2 <= 6
    assert (ROOT / "docs" / "images" / "report.png").stat().st_size <= 250_000


def test_its_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert len(links) > 10
    assert not [link for link in links if not (ROOT / link).is_file()]


def test_the_tables_are_those_of_the_raw_numbers(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench.tables", "--check"])
    with pytest.raises(SystemExit) as ended:
        tables.main()
    assert ended.value.code == 0
