"""The layout: packages in order, no circles, readable files, public names, a lean import."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hyperzero_torch as hz
from hyperzero_torch import errors

PACKAGE = Path(hz.__file__).parent
ROOMS = (
    "errors", "runtime", "problem", "stats", "surrogate", "thompson", "study", "transfer", "tuner",
    "simulate", "live", "report", "integrations", "testing", "cli",
)  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))
#: Longer files that are one thing each.
LONG: set[str] = set()


def name_of(path):
    return str(path.relative_to(PACKAGE))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def file_of(parts):
    """The file of a module within the package, by its path; None where there is none."""
    module = PACKAGE.joinpath(*parts)
    if module.with_suffix(".py").is_file():
        return module.with_suffix(".py")
    return module / "__init__.py" if (module / "__init__.py").is_file() else None


@cache
def imported(path):
    """Files of the package that a file imports, wherever in the file, for types only too."""
    here = path.relative_to(PACKAGE).parts[:-1]
    files = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        dotted = (node.module or "").split(".") if node.module else []
        if node.level:
            base = [*here[: len(here) - node.level + 1], *dotted]
        elif dotted[:1] == ["hyperzero_torch"]:
            base = dotted[1:]
        else:
            continue
        for alias in node.names:
            target = file_of([*base, alias.name]) or file_of(base)
            if target is not None:
                files.add(target)
    return files - {path, PACKAGE / "__init__.py"}


def test_the_root_holds_the_rooms_and_nothing_else():
    entries = {p.name.removesuffix(".py") for p in PACKAGE.iterdir()}
    assert entries - {"__init__", "__pycache__", "py.typed"} == set(ROOMS)
    assert len(ROOMS) + 1 <= 16


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_only_to_earlier_rooms(room):
    files = [f for f in FILES if room_of(f) == room]
    assert files
    for file in files:
        later = [
            name_of(target)
            for target in imported(file)
            if ROOMS.index(room_of(target)) > ROOMS.index(room)
        ]
        assert not later, f"{name_of(file)} imports later rooms {later}"


def test_few_arrows_between_rooms_on_few_floors():
    arrows = {(room_of(f), room_of(t)) for f in FILES if f.parent != PACKAGE for t in imported(f)}
    arrows = {(a, b) for a, b in arrows if a != b}
    assert len(arrows) < 100
    floor = {}
    for room in ROOMS:  # in order, so what a room imports has its floor already
        floor[room] = 1 + max((floor[b] for a, b in arrows if a == room), default=0)
    assert max(floor.values()) <= 10


def test_no_file_imports_itself_by_a_circle():
    # A package's face hands on what its files define: it counts as those who import it see it.
    graph = {f: {t for t in imported(f) if t.name != "__init__.py"} for f in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_file_is_long_unless_it_is_one_thing():
    sizes = {name_of(f): len(f.read_text().splitlines()) for f in FILES}
    long = {name for name, lines in sizes.items() if lines > 330}
    assert long <= LONG, {name: sizes[name] for name in long - LONG}
    assert all(sizes[name] > 330 for name in LONG), "take what is short again off the list"


def test_stored_details_are_read_only_where_journals_are():
    """Everywhere else ``trace`` has them, typed."""
    for file in FILES:
        if name_of(file).startswith(("study/journal/", "testing/")):
            continue
        reads = [
            node.lineno
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Subscript | ast.Attribute)
            and isinstance(node.value, ast.Attribute)
            and node.value.attr == "details"
        ]
        assert not reads, f"{name_of(file)} reads stored details in lines {reads}"


def test_no_branch_is_asserted():
    """Types say what is fitted and what is not; an assertion would say it to nobody."""
    for file in FILES:
        if name_of(file).startswith("testing/"):
            continue  # contract suites are made of assertions
        tree = ast.parse(file.read_text())
        lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        assert not lines, f"{name_of(file)} asserts in lines {lines}"


def test_names_say_what_they_hold():
    """A quantity has a name of its own; these fit any."""
    vague = {"told", "found", "said", "one", "some", "known"}
    for file in FILES:
        bound = {
            node.id if isinstance(node, ast.Name) else node.arg
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.arg)
            or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        }
        assert not bound & vague, f"{name_of(file)} binds {sorted(bound & vague)}"


def test_the_map_names_every_room_and_files_that_are_there():
    words = (hz.__doc__ or "").split()
    assert set(ROOMS) <= set(words)
    named = [word.strip("`.,;") for word in words if word.strip("`.,;").endswith(".py")]
    assert named
    missing = [name for name in named if not (PACKAGE / name).is_file()]
    assert not missing


def test_the_public_names_exist_and_are_sorted():
    assert list(hz.__all__) == sorted(hz.__all__)
    assert all(hasattr(hz, name) for name in hz.__all__)


def test_every_error_is_in_the_tree_and_public():
    named = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    tree = [e for e in named if not issubclass(e, Warning)]
    assert len(tree) >= 15
    assert set(named) - set(tree) == {hz.TunerWarning}
    for error in tree:
        assert issubclass(error, hz.HyperZeroError)
        assert error.__name__ in hz.__all__
    assert issubclass(hz.InputError, ValueError)
    assert issubclass(hz.ReadingsError, hz.InputError)


def test_importing_and_a_few_rounds_pull_in_no_extra_and_nothing_heavy_beside_torch():
    code = (
        "import sys; sys.path.insert(0, 'tests'); "
        "from support.small_study import make, play; "
        "tuner = make(); play(tuner, 3); tuner.recommend(); "
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'plotly', 'pyarrow', 'pandas', 'polars', 'gpytorch', 'sqlalchemy', 'sklearn', 'scipy', "
        "'typer', 'rich', 'botorch', 'optuna', 'duckdb', 'openfeature', 'grpc', 'pyspark', "
        "'psycopg', 'prometheus_client', 'ax', 'ray', 'dp_accounting', 'opendp', "
        "'cryptography', 'sympy', 'triton'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_map_names_all_packages_and_only_files_that_exist():
    layout, where = hz.__doc__.split("Where to look")
    assert tuple(re.findall(r"^    (\w+)  ", layout, re.MULTILINE)) == ROOMS
    named = re.findall(r"\b[a-z]\w*/[\w./]*[\w/]", where.partition("Glossary")[0])
    assert len(named) >= 25
    assert [path for path in named if not (PACKAGE / path).exists()] == []
