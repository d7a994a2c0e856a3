"""Every example of the pages runs as it stands and prints what is printed below it.

Python and bash run in the order of the page, in one folder of their own and in one namespace; SQL
runs on the page's journal; contract suites that a page defines are run. What stands in ``sh`` is
not for a test to run: its commands, options, extras and targets are looked up.
"""

import contextlib
import importlib.util
import io
import re
import shlex
import sqlite3
import subprocess
import tomllib
import unittest
import warnings
from pathlib import Path

import pytest
import typer

import hyperzero_torch as hz
from hyperzero_torch import cli
from hyperzero_torch.cli.app import app
from hyperzero_torch.testing import JournalContract, UpdaterContract

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
RUNNABLE = {"python", "bash", "sql"}
KNOWN = {*RUNNABLE, "text", "sh", "yaml"}


def blocks(page):
    """Language, code and line of every fenced block."""
    text = page.read_text(encoding="utf-8")
    return [(m[1], m[2], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)]


ALL = sorted(DOCS.rglob("*.md"))
PAGES = [page for page in ALL if RUNNABLE & {language for language, *_ in blocks(page)}]


def named(page):
    return page.relative_to(DOCS).as_posix()


def required(page):
    """A package that a page is about and that no extra installs; its first lines name it."""
    found = re.match(r"---\nrequires: ([\w.]+)\n---\n", page.read_text(encoding="utf-8"))
    return found and found[1]


def shell(code):
    """Plain commands, one a line; ours run in this process, which saves an import each."""
    for line in code.strip().splitlines():
        words = shlex.split(line, comments=True)
        if words[0] != "hyperzero":
            subprocess.run(words, check=True, capture_output=True)
            continue
        try:
            cli.main(words[1:])
        except SystemExit as end:
            if end.code not in (None, 0):
                raise AssertionError(f"{line} ended with {end.code}") from None


def run_laws(contract, folder):
    names = [name for name in dir(contract) if name.startswith("test_")]
    assert len(names) > 5
    for name in names:
        place = folder / contract.__name__ / name
        place.mkdir(parents=True)
        with contextlib.suppress(unittest.SkipTest):
            getattr(contract(), name)(place)


def run_page(page, names):
    printed = None
    for language, code, line in blocks(page):
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * (line - 1) + code, page, "exec"), names)
            printed = out.getvalue()
        elif language == "text":
            assert printed == code, f"line {line}"
        elif language == "bash":
            shell(code)
        elif language == "sql":
            with contextlib.closing(sqlite3.connect("studies.db")) as db:
                db.executescript(code)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    package = required(page)
    if package is not None and importlib.util.find_spec(package.split(".")[0]) is None:
        compiled = [compile(code, page, "exec") for language, code, _ in blocks(page)
                    if language == "python"]  # fmt: skip
        assert compiled
        pytest.skip(f"{package} is not installed: the examples were compiled, not run")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    # What another stack says of itself is not ours to mend.
    theirs = package is not None
    with warnings.catch_warnings(action="ignore") if theirs else contextlib.nullcontext():
        run_page(page, names)
    laws = (JournalContract, UpdaterContract)
    for value in list(names.values()):
        if isinstance(value, type) and issubclass(value, laws) and value not in laws:
            run_laws(value, tmp_path / "laws")


def test_there_are_examples_and_every_block_says_what_it_is():
    assert len(PAGES) >= 12
    for page in ALL:
        for language, _, line in blocks(page):
            assert language in KNOWN, f"{named(page)}:{line} is a block of {language!r}"


def test_study_files_on_the_pages_are_study_files(tmp_path):
    found = 0
    for page in ALL:
        for language, code, _ in blocks(page):
            if language == "yaml" and "parameters:" in code:
                (tmp_path / "tuning.yaml").write_text(code)
                hz.StudyConfig.from_file(tmp_path / "tuning.yaml").problem()
                found += 1
    assert found


def test_commands_that_are_only_shown_exist():
    commands = typer.main.get_command(app).commands
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(extras["optional-dependencies"])
    found = 0
    for page in ALL:
        for language, code, line in blocks(page):
            for command in re.findall(r"\bhyperzero ([a-z-]+)([^\n#]*)", code):
                if language not in ("sh", "bash"):
                    continue
                name, options = command
                assert name in commands, f"{named(page)}:{line}: no command {name!r}"
                asked, inner = commands[name], options.split(maxsplit=1)
                if hasattr(asked, "commands"):  # a group of commands
                    assert inner, f"{named(page)}:{line}: which command of {name!r}?"
                    assert inner[0] in asked.commands, f"{named(page)}:{line}: no {inner[0]!r}"
                    asked = asked.commands[inner[0]]
                known = {o for p in asked.params for o in (*p.opts, *p.secondary_opts)}
                wanted = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", options)) - {"--help"}
                assert wanted <= known, f"{named(page)}:{line}: {wanted - known}"
                found += 1
        for listed in re.findall(r"hyperzero-torch\[([\w,]+)\]", page.read_text()):
            assert set(listed.split(",")) <= extras, f"{named(page)}: extras {listed}"
        targets = re.findall(r"`make (\w+)`", page.read_text())
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(f"^{target}:", makefile, re.M) for target in targets), named(page)
    assert found >= 5
