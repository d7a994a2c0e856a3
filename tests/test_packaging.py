"""What is published: sdist and wheel, built, installed into fresh environments and used there."""

import ast
import email
import functools
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hyperzero_torch as hz

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hyperzero_torch"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CORE = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
EXTRAS = {
    extra: {canonicalize_name(Requirement(line).name) for line in lines}
    for extra, lines in PROJECT["optional-dependencies"].items()
}
# What tools of the workplace need and nobody who has the sources.
_NOT_PUBLISHED = (".gitignore", ".ci/")
_JUNK = ("tests/__pycache__/left.cpython-311.pyc", "notebooks/.ipynb_checkpoints/left.ipynb")
# A fresh environment has no compiled files: what is imported there is compiled then, no more.
_QUIETLY = ("--quiet", "--disable-pip-version-check", "--no-compile")


def the_tree():
    """The project's files, relative to its root: all that are not ignored by version control."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if (ROOT / ".git").exists() and shutil.which("git"):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        names = done.stdout.split("\0")[:-1]
    else:  # the sources as published: all of them, but what was made from them
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        made = {"__pycache__", "build", "dist", "demo"}
        names = [
            path.as_posix() for path in paths
            if not any(part.startswith(".") or part.endswith(".egg-info") for part in path.parts)
            and made.isdisjoint(path.parts)
            and path.name not in ("PKG-INFO", "setup.cfg")
        ]  # fmt: skip
    return sorted({name for name in names if (ROOT / name).is_file()})


@pytest.fixture(scope="module")
def listed():
    """Once: somebody may be writing files meanwhile."""
    return the_tree()


@pytest.fixture(scope="module")
def tree(listed, tmp_path_factory):
    """A copy of the project's files, and some junk: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("tree")
    for name in listed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in _JUNK:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("left over")
    return folder


@pytest.fixture(scope="module")
def dist(tree):
    """Folder with an sdist and the wheel that was made from it."""
    pytest.importorskip("build", reason="the extra test brings it")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", tree / "dist"],
        cwd=tree, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "dist"


@pytest.fixture(scope="module")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(dist):
    (path,) = dist.glob("*.tar.gz")
    return path


class Index:
    """pip, as this machine has it set up, with the versions that the tests were made with."""

    def __init__(self, folder):
        self.folder = folder

    def pip(self, python, *words):
        command = [sys.executable, "-m", "pip", "--python", python, *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder)

    def install(self, python, *words):
        done = self.pip(python, "install", *_QUIETLY, "-c", ROOT / "constraints.txt", *words)
        assert done.returncode == 0, done.stdout + done.stderr

    def why_not(self, python):
        """Why nothing can be installed from here, or only gigabytes that nothing needs."""
        report = self.folder / "report.json"
        (torch,) = re.findall(r"^torch==.+$", (ROOT / "constraints.txt").read_text(), re.M)
        done = self.pip(
            python, "install", *_QUIETLY, "--dry-run", "--no-deps", "--retries", "1",
            "--report", report, "gpytorch", torch,
        )  # fmt: skip
        if "from versions: none" in done.stderr:
            return "the package index cannot be reached: " + done.stderr.strip().splitlines()[-1]
        assert done.returncode == 0, done.stdout + done.stderr
        for one in json.loads(report.read_text())["install"]:
            needed = map(Requirement, one["metadata"].get("requires_dist", ()))
            here = {r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})}
            if any(name.startswith(("nvidia", "cuda")) for name in here):
                return (
                    "torch would come with CUDA, several GB; name an index that has a CPU build "
                    "of it: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
                )
        return None


def fresh(folder):
    """The python of a new environment, which sees nothing of this one."""
    venv.create(folder)
    return folder / "bin" / "python"


def site_packages(python):
    (site,) = (python.parent.parent / "lib").glob("python*/site-packages")
    return site


def lend(name, python):
    """Links to the files of a distribution that is installed here; pip takes it for installed.

    Links to files and no folders: whatever pip removed there, it would remove the links alone.
    """
    distribution = importlib.metadata.distribution(name)
    for top in {file.parts[0] for file in distribution.files} - {".."}:
        source = Path(distribution.locate_file(top))
        if source.is_dir():
            shutil.copytree(source, site_packages(python) / top, copy_function=os.symlink)


@pytest.fixture(scope="module")
def by_wheel(wheel, tmp_path_factory):
    """The python of a fresh environment: the wheel, and what pip finds that it depends on."""
    folder = tmp_path_factory.mktemp("by_wheel")
    python, index = fresh(folder / "env"), Index(folder)
    if why := index.why_not(python):
        pytest.skip(why)
    lend("torch", python)  # unpacking and compiling it takes most of the time
    index.install(python, wheel)
    return python


@pytest.fixture(scope="module")
def by_sdist(sdist, by_wheel, tmp_path_factory):
    """A fresh environment too, for what pip builds of the sdist; it borrows the dependencies."""
    folder = tmp_path_factory.mktemp("by_sdist")
    python = fresh(folder / "env")
    Index(folder).install(python, "--no-deps", sdist)
    # Behind its own packages, so that its own hyperzero_torch comes first.
    (site_packages(python) / "borrowed.pth").write_text(f"{site_packages(by_wheel)}\n")
    return python


@pytest.fixture(scope="module")
def beside(wheel, tmp_path_factory):
    """The wheel alone, and what is installed here: no index is needed."""
    folder = tmp_path_factory.mktemp("beside")
    python = fresh(folder / "env")
    Index(folder).install(python, "--no-deps", "--no-index", wheel)
    # The editable install here is no path and stays invisible.
    borrowed = site_packages(python) / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(params=["beside", "by_wheel", "by_sdist"])
def installed(request):
    """The python of an environment that has the package as it is published."""
    return request.getfixturevalue(request.param)


def files_of_the_package():
    """What has to be in the wheel."""
    wanted = {p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".c", ".h")}
    wanted |= set((PACKAGE / "simulate" / "data").iterdir()) | {PACKAGE / "py.typed"}
    return {p.relative_to(ROOT).as_posix() for p in wanted if "__pycache__" not in p.parts}


def run(python, code, cwd):
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert files_of_the_package() <= names
    assert {name.split("/")[0] for name in names} == {"hyperzero_torch"}
    assert any(name.endswith(".c") for name in names)
    assert not any("__pycache__" in name for name in names)


def test_the_sdist_is_the_whole_project_and_nothing_else(sdist, listed):
    """So that its tests run, and its documentation and raw numbers can be read."""
    with tarfile.open(sdist) as archive:
        names = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    made = {name for name in names if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    assert files_of_the_package() <= names
    assert names - made == {n for n in listed if not n.startswith(_NOT_PUBLISHED)}
    assert {name.split("/")[0] for name in names if "/" in name} >= {
        "bench", "docs", "examples", "hyperzero_torch", "notebooks", "tests",
    }  # fmt: skip


def test_the_metadata_says_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
        (entries,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "hyperzero = hyperzero_torch.cli:main" in archive.read(entries).decode()
        assert any(n.endswith("/LICENSE") for n in archive.namelist())
    assert metadata["Name"] == "hyperzero-torch"
    assert metadata["Version"] == hz.__version__ == PROJECT["version"] == CITATION["version"]
    assert metadata["License-Expression"] == PROJECT["license"] == CITATION["license"]
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    needed = [n for n in metadata.get_all("Requires-Dist") if "extra ==" not in n]
    assert sorted(map(str, map(Requirement, needed))) == sorted(
        map(str, map(Requirement, PROJECT["dependencies"]))
    )
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert "Typing :: Typed" in metadata.get_all("Classifier")


def imports(path):
    """Top-level names that a file imports, and whether it can be imported without them."""

    def within(node, spared):
        for child in ast.iter_child_nodes(node):
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Import):
                yield from ((alias.name.split(".")[0], spared) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and not child.level:
                yield child.module.split(".")[0], spared
            yield from within(child, spared or for_types or function or catches(child))

    def catches(node):
        return isinstance(node, ast.Try) and any(
            handler.type is not None and "ImportError" in ast.unparse(handler.type)
            for handler in node.handlers
        )

    ours = {*sys.stdlib_module_names, "hyperzero_torch"}
    modules = within(ast.parse(path.read_text()), False)
    return {(name, spared) for name, spared in modules if name not in ours}


@functools.cache
def _installed():
    return importlib.metadata.packages_distributions()


def distributions(name):
    """What has to be installed to import this."""
    return {canonicalize_name(one) for one in _installed().get(name, [name])}


def test_whatever_the_package_imports_is_declared_and_whatever_is_declared_is_imported():
    used = {(p, *one) for p in PACKAGE.rglob("*.py") for one in imports(p)}
    of_extras = set().union(*(EXTRAS[e] for e in EXTRAS if e not in ("test", "docs", "peers")))
    for path, name, spared in used:
        # A package of integrations is imported as a whole: its face says what is missing.
        face = path.parent / "__init__.py"
        spared |= path.parent.parent.name == "integrations" and "except ImportError" in (
            face.read_text()
        )
        allowed = CORE | of_extras if spared else CORE
        assert distributions(name) & allowed, f"{path} imports {name}, which is not declared"
    imported = set().union(*(distributions(name) for _, name, _ in used))
    assert imported >= CORE
    # SQLAlchemy imports psycopg, by the address of a database.
    unseen = of_extras - imported - {"hyperzero-torch"}
    assert unseen <= {"psycopg"}


def test_an_extra_that_an_error_names_brings_what_is_missing():
    calls = [
        call
        for path in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "MissingExtraError"
    ]
    assert len(calls) > 10
    for call in calls:
        _, package, extra = call.args
        assert ast.literal_eval(extra) in EXTRAS
        if isinstance(package, ast.Constant):
            name = canonicalize_name(Requirement(package.value).name)
            assert name in EXTRAS[ast.literal_eval(extra)]


# ``saas`` brings JAX, a second framework of tensors, for one surrogate: who wants it, names it.
_NAMED_ALONE = {"fused", "saas"}


def test_the_extra_all_brings_every_extra_of_the_package_but_those_to_be_named():
    (line,) = PROJECT["optional-dependencies"]["all"]
    assert Requirement(line).extras == set(EXTRAS) - {"all", "docs", "peers", "test"} - _NAMED_ALONE


@pytest.mark.timeout(600)
def test_what_it_depends_on_is_all_that_it_needs(by_wheel, tmp_path):
    """In an environment that has what pip found, every module imports or names its extra."""
    code = """
import importlib, importlib.metadata, json, pkgutil
import hyperzero_torch
found = {}
for module in pkgutil.walk_packages(hyperzero_torch.__path__, "hyperzero_torch."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
        found[module.name] = ""
    except hyperzero_torch.MissingExtraError as error:
        found[module.name] = str(error)
have = [d.name for d in importlib.metadata.distributions()]
print(json.dumps([found, have]))
"""
    used, have = json.loads(run(by_wheel, code, tmp_path))
    have = {canonicalize_name(name) for name in have}
    assert have >= CORE | {"hyperzero-torch"}
    assert not have & {"botorch", "optuna", "plotly", "pandas", "pytest"}  # fresh indeed
    missing = {name for name, error in used.items() if error}
    assert len(used) > 100
    rooms = {".".join(name.split(".")[1:3]) for name in missing}
    assert rooms >= {f"integrations.{name}" for name in ("botorch", "optuna", "ax", "ray")}
    assert {room for room in rooms if not room.startswith("integrations.")} == {"runtime.fused"}
    checked = Index(tmp_path).pip(by_wheel, "check")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.timeout(600)
def test_installed_it_is_typed_has_its_data_tunes_and_has_its_command(installed, tmp_path):
    """One process of the environment: importing PyTorch takes most of it."""
    code = """
import json, hyperzero_torch as hz, importlib.resources as resources
from hyperzero_torch.simulate import PaperWorld, asos, run
package = resources.files("hyperzero_torch")
native = package.joinpath("runtime", "native")
world = PaperWorld(seed=1)
config = hz.TunerConfig.paper(initial_candidates=9, num_draws=100, num_samples=500)
tuner = hz.Tuner(world.problem, config, "sqlite:///study.db")
rounds = sum(1 for _ in run(tuner, world, num_rounds=4))
print(json.dumps({
    "at": hz.__file__,
    "version": hz.__version__,
    "typed": package.joinpath("py.typed").is_file(),
    "kernels": [p.name for p in native.iterdir() if p.name.endswith(".c")],
    "experiments": len(asos.experiments()),
    "rounds": rounds,
    "recommended": tuner.recommend().candidate_id,
}))
"""
    facts = json.loads(run(installed, code, tmp_path))
    assert Path(facts["at"]).is_relative_to(installed.parent.parent)
    assert facts["version"] == hz.__version__
    assert facts["typed"]
    kernels = {p.name for p in (PACKAGE / "runtime" / "native").glob("*.c")}
    assert set(facts["kernels"]) == kernels != set()
    assert facts["experiments"] > 0
    assert facts["rounds"] == 4
    assert facts["recommended"] >= 0
    command = installed.parent / "hyperzero"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [command, "init"], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert hz.StudyConfig.from_file(tmp_path / "tuning.yaml").problem()


def test_the_citation_has_the_paper_as_it_is_printed():
    paper = CITATION["preferred-citation"]
    assert CITATION["authors"] == [{"name": "HyperZero Torch contributors"}]
    assert paper["doi"] == "10.1145/3690624.3709409"
    assert len(paper["authors"]) == 14
    assert paper["authors"][0] == {"family-names": "Cai", "given-names": "Xufeng"}
    assert f"doi.org/{paper['doi']}" in (ROOT / "README.md").read_text()


def test_the_changelog_has_a_place_for_what_comes_next():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[Unreleased\]$", text, re.M)
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text, re.M)
    assert released == sorted(set(released), key=lambda v: [*map(int, v.split("."))], reverse=True)
