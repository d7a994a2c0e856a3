"""The pages: built without a warning, every name in them exists, every public name is in them."""

import ast
import contextlib
import doctest
import importlib
import inspect
import os
import pkgutil
import posixpath
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hyperzero_torch as hz
from hyperzero_torch import live, simulate, testing

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGES = [path for path in (ROOT / "hyperzero_torch").iterdir()
            if path.is_dir() and (path / "__init__.py").is_file()] + ["errors"]  # fmt: skip
PAGES = sorted(DOCS.rglob("*.md"))
sys.path.insert(0, str(DOCS))
hooks = importlib.import_module("hooks")
sys.path.remove(str(DOCS))


def prose(page):
    """A page without its fenced and indented code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.sub(r"^    .*$", "", text, flags=re.M)


def defined_in(parts):
    """The top level names of a module that cannot be imported here, as attributes of something."""
    path = ROOT.joinpath(*parts).with_suffix(".py")
    kinds = (ast.ClassDef, ast.FunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return SimpleNamespace(**{one.name: one for one in tree.body if isinstance(one, kinds)})


def led_to(name):
    """What a dotted name leads to, and what is left of it; a module before what hides it."""
    parts = name.replace("hz.", "hyperzero_torch.", 1).split(".")
    at = hz
    for i in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            try:
                at, parts = importlib.import_module(".".join(parts[:i])), parts[i:]
            except hz.MissingExtraError:  # an adapter whose stack is not installed: its text then
                if not ROOT.joinpath(*parts[:i]).with_suffix(".py").is_file():
                    continue
                at, parts = defined_in(parts[:i]), parts[i:]
            break
    while parts and hasattr(at, parts[0]):
        at, parts = getattr(at, parts[0]), parts[1:]
    return at, parts


def found(name):
    """Whether a dotted name leads somewhere: modules, attributes, fields with or without values."""
    at, left = led_to(name)
    if not left:
        return True
    made = ""
    with contextlib.suppress(OSError, TypeError):  # what has no __init__ of its own
        made = inspect.getsource(at.__init__)
    own = {f.name for f in fields(at)} if is_dataclass(at) else set()
    own |= set(getattr(at, "model_fields", ()))
    own |= set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", made))
    return len(left) == 1 and left[0] in own


def test_a_name_that_is_not_there_is_not_found():
    assert found("hz.TunerConfig.num_draws")
    assert found("hz.Problem.base")
    assert found("hyperzero_torch.stats.sequential.radius")
    for wrong in ("hz.Tunner", "hz.TunerConfig.draws_num", "hyperzero_torch.stats.sequental"):
        assert not found(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(DOCS).as_posix())
def test_every_name_of_ours_in_the_prose_exists(page):
    names = set(re.findall(r"`((?:hz|hyperzero_torch)\.[\w.]+)(?:\([^`]*\))?`", prose(page)))
    names |= set(re.findall(r"^::: ([\w.]+)", page.read_text(encoding="utf-8"), re.M))
    missing = sorted(name for name in names if not found(name))
    assert not missing


def test_the_papers_symbols_have_a_table():
    text = (DOCS / "mathematics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+? \| (.+) \|$", text, re.M)
    told = [symbol for symbol, code in rows if re.search(r"`(hz|hyperzero_torch)\.", code)]
    algorithms = [f"Algorithm {number}" for number in (1, 2, 3)]
    for symbol in ("θ₀", "Nₜ", "ΔX(θ)", *algorithms, "𝓑", "𝓡", "K ", "N ", "p "):
        assert any(one.startswith(symbol) for one in told), f"no row for {symbol}"


def documented():
    """What the reference shows: objects, and modules whose every public member is shown."""
    for page in (DOCS / "reference").glob("*.md"):
        text = hooks.inserted(page.read_text(encoding="utf-8"), "docs/reference")
        for name in re.findall(r"^::: ([\w.]+)", text, re.M):
            yield led_to(name)[0]


def test_every_public_name_is_in_the_reference():
    shown = list(documented())
    modules = {one.__name__ for one in shown if inspect.ismodule(one)}
    public = [(hz, name) for name in hz.__all__]
    public += [(room, name) for room in (hz.thompson, live, simulate, testing)
               for name in room.__all__]  # fmt: skip
    missing = []
    for room, name in public:
        value = getattr(room, name)
        if inspect.ismodule(value):
            there = value.__name__ in modules or value is hz.thompson
        elif inspect.isclass(value) or inspect.isfunction(value):
            there = any(value is one for one in shown) or value.__module__ in modules
        else:
            there = True  # a constant: told where it is used
        if not there:
            missing.append(f"{room.__name__}.{name}")
    assert not missing


def test_docstrings_examples_run():
    """There may be few; those that are there are right."""
    for info in pkgutil.walk_packages(hz.__path__, "hyperzero_torch."):
        try:
            module = importlib.import_module(info.name)
        except ImportError:
            if "integrations" not in info.name:  # an adapter whose stack is not installed
                raise
            continue
        for case in doctest.DocTestFinder().find(module, info.name):
            assert doctest.DocTestRunner().run(case).failed == 0, case.name


def test_a_docstring_gets_its_empty_lines():
    pytest.importorskip("griffe")
    sys.path.insert(0, str(DOCS))
    spaced = importlib.import_module("docstrings").spaced
    sys.path.remove(str(DOCS))
    given = "What.\n\nArgs:\n    a: b.\nReturns:\n    c.\nSource: d."
    assert spaced(given) == "What.\n\n\nArgs:\n    a: b.\n\nReturns:\n    c.\n\nSource: d."


def test_what_is_inserted_is_there_and_what_is_not_is_an_error():
    assert "[`tuner`](hyperzero_torch/tuner/__init__.py)" in hooks.packages()[0]
    assert hooks.packages()[0].count("\n") == 1 + len(PACKAGES)
    assert "| `--rounds` | Hours to run. Default: `30`. |" in hooks.commands()[0]
    assert "| `--dry-run` | Check and show; write nothing. |" in hooks.commands()[0]
    for kind, wrong in (("file", "NOTHING.md"), ("members", "hyperzero_torch.nothing")):
        with pytest.raises(hooks.MissingPieceError):
            hooks.PIECES[kind](wrong)
    with pytest.raises(hooks.MissingPieceError, match="hooks"):
        hooks.inserted("<!-- insert: nonsense -->", "docs")


def test_links_in_what_is_inserted_are_moved():
    text = hooks.inserted("<!-- insert: packages -->", "docs/reference")
    assert "](../../hyperzero_torch/tuner/__init__.py)" in text


words = st.text("abc", min_size=1, max_size=3)


@given(*(st.lists(words, max_size=3) for _ in range(2)), st.lists(words, min_size=1, max_size=3))
def test_a_moved_link_leads_where_it_led(written, read, target):
    """From the folder in which it was written to that of the page on which it is read."""
    written, read, target = ("/".join(parts) for parts in (written, read, target))
    moved = hooks._moved(f"a [b]({target}#c) d", written, read)
    path = re.fullmatch(r"a \[b\]\((.+)#c\) d", moved)[1]
    assert posixpath.normpath(posixpath.join(read, path)) == posixpath.normpath(
        posixpath.join(written, target)
    )
    assert hooks._moved("[a](https://b.c/d) [e](#f)", written, read) == "[a](https://b.c/d) [e](#f)"


def test_every_file_of_raw_numbers_has_a_writer():
    text = hooks.raw()[0]
    for path in (ROOT / "bench" / "results").iterdir():
        assert f"[{path.name}](bench/results/{path.name}) | [" in text


def comparison():
    text = (DOCS / "comparison.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- comparison -->\n(.*?)\n<!-- /comparison -->", text, re.S)[1]
    return table, [[c.strip() for c in row.strip("|").split(" | ")] for row in table.splitlines()]


# Where a peer's links may lead: to a release's tag, into a published wheel, to a release's page.
PINNED = {
    "botorch": "https://github.com/meta-pytorch/botorch/blob/v{}/",
    "ax-platform": "https://github.com/facebook/Ax/blob/{}/",
    "optuna": "https://github.com/optuna/optuna/blob/v{}/",
    "optuna-integration": "https://github.com/optuna/optuna-integration/blob/v{}/",
    "google-vizier": "https://inspector.pypi.io/project/google-vizier/{}/packages/",
    "scikit-optimize": "https://inspector.pypi.io/project/scikit-optimize/{}/packages/",
}
PEERS = [["botorch"], ["ax-platform"], ["optuna", "optuna-integration"], ["google-vizier"],
         ["scikit-optimize"]]  # fmt: skip
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


def compared_releases():
    """Releases as the page names them."""
    text = " ".join((DOCS / "comparison.md").read_text(encoding="utf-8").split())
    return {name: re.search(rf"\b{name} (\d+\.\d+\.\d+)", text)[1] for name in PINNED}


def file_of(link, releases):
    """The package, the release's file within it or None for its page; None where not pinned."""
    for name, release in releases.items():
        place = PINNED[name].format(release)
        if link == f"https://pypi.org/project/{name}/{release}/":
            return name, None
        if link.startswith(place):
            return name, link.removeprefix(place).partition(".whl/")[2] or link[len(place) :]
    return None


def test_the_releases_compared_are_those_that_are_tested_with():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", pins, re.M))
    releases = compared_releases()
    assert releases.keys() & pinned.keys() >= {"botorch", "ax-platform", "optuna"}
    for name in releases.keys() & pinned.keys():
        assert releases[name] == pinned[name]


def test_every_cell_of_a_peer_has_a_link_into_the_release_compared():
    releases = compared_releases()
    _, (_, _, *rows) = comparison()
    assert len(rows) > 12
    for row in rows:
        for cell, allowed in zip(row[2:], PEERS, strict=True):
            links = [link for _, link in LINK.findall(cell)]
            assert links, f"{row[0]}: {cell!r} leads nowhere"
            for link in links:
                found = file_of(link, releases)
                assert found, f"{row[0]}: {link} moves, or is another release's"
                assert found[0] in allowed, f"{row[0]}: {link}"
    assert file_of("https://github.com/optuna/optuna/blob/master/README.md", releases) is None
    assert file_of("https://github.com/optuna/optuna/blob/v4.0.0/README.md", releases) is None


def test_what_a_link_into_a_peer_names_stands_in_that_file():
    """For the peers that are installed, in the release that was compared."""
    releases, checked = compared_releases(), 0
    for text, link in LINK.findall(comparison()[0]):
        name, path = file_of(link, releases) or (None, None)
        try:
            there = path and distribution(name)
        except PackageNotFoundError:
            continue
        if not there or there.version != releases[name] or path.endswith(".md"):
            continue
        if path.startswith("tutorial/"):  # of the repository, in no wheel
            continue
        file = Path(there.locate_file(path))
        assert file.is_file(), link
        code = file.read_text(encoding="utf-8")
        for words in re.findall(r"`([^`]+)`", text):
            for word in re.findall(r"\w+", words):
                assert re.search(rf"\b{word}\b", code), f"no {word!r} in {path}"
                checked += 1
    if not checked:
        pytest.skip("no peer is installed in the release compared")


def test_the_comparison_is_whole_and_every_cell_of_ours_leads_to_a_proof():
    _, (titles, _, _, *rows) = comparison()
    peers = ["BoTorch", "Ax", "Optuna", "OSS Vizier", "scikit-optimize"]
    assert [t.strip("| ") for t in titles][-5:] == peers
    features = [row[0].strip("| ") for row in rows]
    for feature in ("deltas against control", "late and revised data", "known noise", "GPU",
                    "duplicates as traffic", "neural objectives", "guardrails under peeking",
                    "candidates per round", "resume", "transfer", "audit"):  # fmt: skip
        assert feature in features
    for row in rows:
        assert len(row) == 7, row[0]
        links = re.findall(r"\]\(([^)]+)\)", row[1])
        assert all((DOCS / link).resolve().is_file() for link in links), row[0]
        assert links or "not in this release" in row[1], row[0]


def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path / "site"],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    built = sorted((tmp_path / "site").rglob("index.html"))
    assert len(built) == len(PAGES)
    for page in built:
        html = page.read_text(encoding="utf-8")
        assert "<!-- insert:" not in html, page
        fetched = re.findall(r"<(?:script|img)[^>]+src=[\"']?(https?://[^\"'\s>]+)", html)
        fetched += re.findall(r"<link[^>]+stylesheet[^>]+href=[\"']?(https?://[^\"' >]+)", html)
        assert not fetched, page
