"""The house itself: rooms in order, names that are public, a quick and lean import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hyperzero_torch as hz
from hyperzero_torch import errors

PACKAGE = Path(hz.__file__).parent
ROOMS = (
    "errors", "runtime", "problem", "stats", "surrogate", "thompson", "study", "transfer", "tuner",
    "simulate", "live", "report", "integrations", "testing", "cli",
)  # fmt: skip


def rooms_imported(path: Path) -> set[str]:
    """Rooms of the package that a file imports, wherever in the file."""
    depth = len(path.relative_to(PACKAGE).parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {name.split(".")[0] for name in names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "hyperzero_torch."
        ):
            found.add(node.module.split(".")[1])
    return found


def test_every_file_stands_in_a_known_room():
    rooms = {
        p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()
    }
    assert rooms - {"__init__", "__pycache__", "py.typed"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_only_to_earlier_rooms(room):
    files = (
        [PACKAGE / f"{room}.py"]
        if (PACKAGE / f"{room}.py").exists()
        else sorted((PACKAGE / room).rglob("*.py"))
    )
    assert files
    for file in files:
        later = [
            r for r in rooms_imported(file) if r in ROOMS and ROOMS.index(r) > ROOMS.index(room)
        ]
        assert not later, f"{file.relative_to(PACKAGE)} imports later rooms {later}"


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


def test_importing_pulls_in_no_extra_and_nothing_heavy_beside_torch():
    code = (
        "import sys, hyperzero_torch; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'plotly', 'pyarrow', 'pandas', 'polars', 'gpytorch', 'sqlalchemy', 'sklearn', 'scipy', "
        "'typer', 'rich', 'botorch', 'optuna', 'duckdb', 'openfeature', 'grpc', 'pyspark', "
        "'psycopg', 'prometheus_client', 'ax', 'ray', 'dp_accounting', 'opendp', "
        "'cryptography'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_map_names_all_packages_and_only_files_that_exist():
    layout, where = hz.__doc__.split("Where to look")
    assert tuple(re.findall(r"^    (\w+)  ", layout, re.MULTILINE)) == ROOMS
    named = re.findall(r"\b[a-z]\w*/[\w./]*[\w/]", where.partition("Glossary")[0])
    assert len(named) >= 25
    assert [path for path in named if not (PACKAGE / path).exists()] == []
