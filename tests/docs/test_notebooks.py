"""The notebooks: each runs at a small budget; the outputs that are committed belong to the code.

A cell tagged ``parameters`` sets the budget; a test puts a cell with smaller values after it.
"""

import ast
import base64
import importlib
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import hyperzero_torch as hz

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: the extra test brings it")
pytest.importorskip("nbclient", reason="needs nbclient: the extra test brings it")
pytest.importorskip("ipykernel", reason="needs ipykernel: the extra test brings it")
pytest.importorskip("matplotlib", reason="needs matplotlib: the extra test brings it")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
PATHS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
SMALL = {
    "01_quick_start": {"rounds": 5},
    "02_real_ab_data": {"rounds": 4, "pictures": ["progress"]},
    "03_neural_objective": {"num_past": 100, "steps": 60, "rounds": 2, "pictures": []},
    "04_large_buckets_and_cuda": {
        "num_users": [1_000, 2_000],
        "num_known": [16, 32],
        "num_points": [100, 200],
        "num_candidates": [20, 40],
        "num_draws": 50,
        "repeats": 1,
    },
    "05_race_with_botorch": {"worlds": [2], "rounds": 5, "pictures": []},
    "06_living_recommender": {"num_users": 6_000, "rounds": 3, "pictures": ["traffic"]},
    "07_transfer": {
        "rounds": 4,
        "rounds_north": 4,
        "rounds_south": 5,
        "worlds": [0],
        "pictures": [],
    },
    "08_reading_the_report": {"rounds": 8, "turns_at": 3, "pictures": ["ended"]},
}
NEEDS = {
    "01_quick_start": {"pandas": "frames", "plotly": "report"},
    "02_real_ab_data": {"pandas": "frames", "plotly": "report"},
    "03_neural_objective": {"pandas": "frames", "plotly": "report"},
    "04_large_buckets_and_cuda": {"pandas": "frames"},
    "05_race_with_botorch": {"botorch": "botorch", "pandas": "frames", "plotly": "report"},
    "06_living_recommender": {
        "duckdb": "duckdb",
        "pyarrow": "parquet",
        "openfeature.contrib.provider.flagd": "flags",
        "pandas": "frames",
        "plotly": "report",
    },
    "07_transfer": {"pandas": "frames", "plotly": "report"},
    "08_reading_the_report": {"pandas": "frames", "plotly": "report"},
}
MOST_BYTES = 400_000
HEADING = "**At the end you will know**"
# Folders of machines, as paths in messages begin.
PLACES = re.compile(r"(?<![\w./])/(?:home|root|tmp|work|usr|opt|var|private|Users|mnt)/|[A-Z]:\\\\")
# Its sockets lie in a folder of ours: no ports, and nobody else on the machine can listen. The
# first cell of each notebook clears all names: one kernel imports PyTorch once.
EXECUTE = """
import sys, nbformat
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
sockets, *paths = sys.argv[1:]
manager = KernelManager(kernel_name="python3", transport="ipc", ip=sockets)
try:
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
        try:
            NotebookClient(notebook, km=manager, timeout=200).execute()
        except CellExecutionError as error:
            print(path, error, file=sys.stderr)
        del notebook.cells[0]
        nbformat.write(notebook, path)
finally:
    manager.shutdown_kernel(now=True)
"""
each = pytest.mark.parametrize("name", PATHS)


def read(name):
    return nbformat.read(PATHS[name], as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(cell):
    """The text of a cell's outputs."""
    parts = []
    for output in cell.outputs:
        parts += [output.text] if output.output_type == "stream" else []
        data = output.get("data", {})
        parts += ["".join(data[mime]) for mime in data if mime.startswith("text/")]
    return "\n".join(parts)


def kinds(cell):
    """What a cell shows: streams by name, else kinds of pictures and text."""
    found = set()
    for output in cell.outputs:
        found |= {output.name} if output.output_type == "stream" else set(output.data)
    return found


def budget(notebook):
    """The one cell that is tagged."""
    (cell,) = (c for c in code(notebook) if "parameters" in c.metadata.get("tags", []))
    return cell


@pytest.fixture(scope="module")
def kernel_home():
    """A folder for what a kernel writes; its name is short, since sockets lie in it."""
    from matplotlib import font_manager

    assert font_manager.fontManager.ttflist  # found once, or the first kernel tells that it looks
    folder = tempfile.mkdtemp(prefix="nb")
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


def executed(notebooks, home):
    """Run in the notebooks' folder, in a process of its own: Jupyter's own warnings stay there.

    Returns the notebooks with their new outputs, and the errors of those that did not end.
    """
    paths = {name: home / f"{name}.ipynb" for name in notebooks}
    for name, notebook in notebooks.items():
        nbformat.write(notebook, paths[name])
    variables = {name: str(home) for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    result = subprocess.run(
        [sys.executable, "-c", EXECUTE, home / "s", *paths.values()],
        capture_output=True, text=True, check=False, cwd=FOLDER,
        env=os.environ | variables | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    ran = {name: nbformat.read(path, as_version=4) for name, path in paths.items()}
    return ran, result.stderr


def at_a_small_budget(name):
    """A notebook without outputs, with a cell that lowers its budget, and where that cell is."""
    notebook = read(name)
    for cell in code(notebook):
        cell.outputs, cell.execution_count = [], None
    smaller = "\n".join(f"{key} = {value!r}" for key, value in SMALL[name].items())
    at = notebook.cells.index(budget(notebook)) + 1
    notebook.cells.insert(at, nbformat.v4.new_code_cell(smaller))
    return notebook, at


def missing_extras(name):
    """The extras that a notebook needs and this environment lacks."""
    extras = set()
    for module, extra in NEEDS.get(name, {}).items():
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # of a package above it
            spec = None
        extras |= {extra} if spec is None else set()
    return sorted(extras)


def test_there_are_eight_and_each_has_a_small_budget():
    assert list(PATHS) == list(SMALL)


@pytest.mark.timeout(600)
def test_each_runs_at_a_small_budget_and_shows_what_is_committed(kernel_home):
    missing = {name: extras for name in PATHS if (extras := missing_extras(name))}
    small = {name: at_a_small_budget(name) for name in PATHS if name not in missing}
    ran, errors = executed({name: notebook for name, (notebook, _) in small.items()}, kernel_home)
    assert not errors.strip(), errors[-3000:]
    for name, (_, at) in small.items():
        del ran[name].cells[at]
        for cell, kept in zip(code(ran[name]), code(read(name)), strict=True):
            assert cell.execution_count, f"{name} did not run: {cell.source}"
            assert "stderr" not in kinds(cell), f"{name}: {said(cell)}"
            if "in pictures" not in cell.source:  # of which a small budget takes few
                assert kinds(cell) == kinds(kept), f"{name}: {cell.source}"
    if missing:
        needed = sorted({extra for extras in missing.values() for extra in extras})
        pytest.skip(f"{list(missing)} need pip install 'hyperzero-torch[{','.join(needed)}]'")


@each
def test_it_opens_with_what_you_will_know(name):
    opening = read(name).cells[0]
    assert opening.cell_type == "markdown"
    title, _, rest = opening.source.partition("\n")
    assert re.fullmatch(r"# \S.{3,60}", title)
    assert rest.count(HEADING) == 1
    listed = rest.split(HEADING)[1].strip().splitlines()
    assert sum(line.startswith("- ") for line in listed) >= 3


@each
def test_a_small_budget_changes_only_what_the_notebooks_own_cell_sets(name):
    tree = ast.parse(budget(read(name)).source)
    own = {target.id for node in tree.body for target in node.targets}
    assert set(SMALL[name]) <= own


@each
def test_outputs_are_there_in_order_without_errors_warnings_or_paths(name):
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in kinds(cell) for cell in cells) >= 2
    for cell in cells:
        assert all(output.output_type != "error" for output in cell.outputs), cell.source
        assert "stderr" not in kinds(cell), said(cell)
        if re.search(r"^print\(", cell.source, re.M):
            assert "stdout" in kinds(cell), cell.source
        if re.search(r"^plt.show\(\)", cell.source, re.M):
            assert "image/png" in kinds(cell), cell.source
        assert not re.search(r"\w*Warning\b|Traceback", said(cell)), said(cell)
        assert not PLACES.search(said(cell)), said(cell)
        assert not PLACES.search(cell.source), cell.source


@each
def test_it_is_small_and_its_pictures_are_whole(name):
    assert PATHS[name].stat().st_size <= MOST_BYTES
    for cell in code(read(name)):
        for output in cell.outputs:
            assert "text/html" not in output.get("data", {}), "what GitHub may not show"
            if "image/png" in output.get("data", {}):
                raw = base64.b64decode(output.data["image/png"])
                width, height = struct.unpack(">II", raw[16:24])
                assert raw[:8] == b"\x89PNG\r\n\x1a\n"
                assert raw[-8:-4] == b"IEND"
                assert 300 <= width <= 1200
                assert 100 <= height <= 2600


def chain(node):
    """The parts of ``a.b.c``; where it begins with something else than a name, that is empty."""
    if isinstance(node, ast.Attribute):
        return [*chain(node.value), node.attr]
    return [node.id if isinstance(node, ast.Name) else ""]


def missing_names(tree):
    """Names of ours that do not exist: attributes of ``hz``, and what is imported from us."""
    gone = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hyperzero_torch"):
            room = importlib.import_module(node.module)
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if not hasattr(room, alias.name) and not _is_module(whole):
                    gone.append(whole)
        elif isinstance(node, ast.Attribute):
            parts = chain(node)
            at = hz
            for part in parts[1:] if parts[0] == "hz" else ():
                if not hasattr(at, part):
                    gone.append(".".join(parts))
                    break
                at = getattr(at, part)
                if not (isinstance(at, type) or hasattr(at, "__path__") or hasattr(at, "__file__")):
                    break
    return gone


def _is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@each
def test_every_name_of_ours_exists(name):
    for cell in code(read(name)):
        assert not missing_names(ast.parse(cell.source)), cell.source


def test_a_name_that_is_gone_is_found():
    tree = ast.parse("hz.Tunner(1)\nhz.Tuner.rezume()\nfrom hyperzero_torch.report import wright\n")
    assert len(missing_names(tree)) == 3
    assert not missing_names(ast.parse("hz.Tuner(1).ask()\nhz.moments.Moments(1).mean.sum()\n"))


@each
def test_links_lead_somewhere(name):
    for cell in read(name).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", cell.source):
                assert link.startswith("https://") or (FOLDER / link).resolve().exists(), link


@each
def test_figures_in_the_text_are_those_of_the_outputs(name):
    notebook = read(name)
    shown = "\n".join(cell.source + "\n" + said(cell) for cell in code(notebook))
    numbers = set(re.findall(r"\d+(?:\.\d+)?", shown))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"`[^`]*`|\]\([^)]*\)|^    .*$|CC BY 4.0", "", cell.source, flags=re.M)
            for figure in re.findall(r"\d+\.\d+|\d+(?= ?%)", prose):
                assert figure in numbers, f"{figure}: {cell.source}"


def test_each_is_named_in_the_documentation():
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(\.\./notebooks/(\w+)\.ipynb\)", page)
    assert linked == list(PATHS)


def test_code_is_clean():
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("needs ruff: the extra test brings it")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", str(FOLDER)],
            capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
