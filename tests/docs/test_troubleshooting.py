"""The messages that the pages for people in trouble quote are those that the package has."""

import ast
import re
from pathlib import Path

import pytest

import hyperzero_torch as hz

PAGE = (Path(__file__).parents[2] / "docs/how-to/troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `(.+?)` \|", PAGE, re.M)


@pytest.fixture(scope="module")
def messages():
    """Every text of the package's source; what varies in it is a NUL."""
    texts = []
    for path in Path(hz.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n\n".join(texts)


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_one_of_the_package(messages, quoted):
    parts = (re.escape(part) for part in quoted.split("…"))
    assert re.search("[^\n]*?".join(parts), messages), quoted


def test_the_page_has_many_and_each_says_what_to_do():
    assert len(QUOTED) >= 25
    for row in re.findall(r"^\| `.+", PAGE, re.M):
        cells = [cell.strip() for cell in re.sub(r"`[^`]*`", "`", row).strip("|").split("|")]
        assert len(cells) == 3, row
        assert all(cells), row


def test_the_exit_codes_are_those_of_the_command_line():
    from hyperzero_torch.cli.app import app

    words = " ".join(app.info.help.split())
    for code, what in re.findall(r"(\d) ([a-z][^;:.]+?)[;.]", PAGE.split("## Study file")[0]):
        assert re.search(rf"\b{code} {re.escape(what[:12])}", words), (code, what)
