"""The simulated card itself, and what single parts of the package do on it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "support/card_checks.py"
CHECKS = [
    node.name
    for node in ast.parse(SOURCE.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@pytest.fixture(scope="module")
def checks(on_card):
    return {check["name"]: check["error"] for check in on_card("support.card_checks")}


@pytest.mark.parametrize("name", CHECKS)
def test_on_a_simulated_card(checks, name):
    assert checks[name] is None, checks[name]
