"""What is published: sdist and wheel, built, installed into a fresh environment and used there."""

import email
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

import hyperzero_torch as hz

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Folder with an sdist and the wheel that was made from it."""
    pytest.importorskip("build", reason="the extra test brings it")
    folder = tmp_path_factory.mktemp("tree")
    # A copy: building leaves folders behind, and two builds at once would meet in them.
    caches = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "hyperzero_torch", folder / "hyperzero_torch", ignore=caches)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=caches)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, folder)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The python of a fresh environment that has the wheel, and sees what it depends on here."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(folder)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
         "--no-index", "--disable-pip-version-check", wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    (site,) = (folder / "lib").glob("python*/site-packages")
    # Behind its own packages; the editable install here is no path and stays invisible.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def files_of_the_package():
    """What has to be in the wheel."""
    package = ROOT / "hyperzero_torch"
    wanted = {p for p in package.rglob("*") if p.suffix in (".py", ".c", ".h")}
    wanted |= set((package / "simulate" / "data").iterdir()) | {package / "py.typed"}
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


def test_the_sdist_holds_what_is_needed_to_build_and_to_know(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert files_of_the_package() <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_metadata_says_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(archive.read(name))
        (entries,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "hyperzero = hyperzero_torch.cli:main" in archive.read(entries).decode()
        assert any(n.endswith("/LICENSE") for n in archive.namelist())
    assert told["Name"] == "hyperzero-torch"
    assert told["Version"] == hz.__version__ == PROJECT["version"] == CITATION["version"]
    assert told["License-Expression"] == PROJECT["license"] == CITATION["license"]
    assert set(told.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    needed = [n for n in told.get_all("Requires-Dist") if "extra ==" not in n]
    assert len(needed) == len(PROJECT["dependencies"])


def test_installed_it_imports_is_typed_and_has_its_data(installed, tmp_path):
    code = """
import json, hyperzero_torch, importlib.resources as resources
from hyperzero_torch.simulate import asos
package = resources.files("hyperzero_torch")
print(json.dumps({
    "at": hyperzero_torch.__file__,
    "version": hyperzero_torch.__version__,
    "typed": package.joinpath("py.typed").is_file(),
    "kernels": [p.name for p in package.joinpath("native").iterdir() if p.name.endswith(".c")],
    "experiments": len(asos.experiments()),
}))
"""
    found = json.loads(run(installed, code, tmp_path))
    assert Path(found["at"]).is_relative_to(installed.parent.parent)
    assert found["version"] == hz.__version__
    assert found["typed"]
    kernels = {p.name for p in (ROOT / "hyperzero_torch" / "native").glob("*.c")}
    assert set(found["kernels"]) == kernels
    assert found["experiments"] > 0


def test_installed_it_tunes_and_has_its_command(installed, tmp_path):
    code = """
import hyperzero_torch as hz
from hyperzero_torch.simulate import PaperWorld, run
world = PaperWorld(seed=1)
tuner = hz.Tuner(world.problem, hz.TunerConfig.paper(initial_candidates=9), "sqlite:///study.db")
print(sum(1 for _ in run(tuner, world, num_rounds=4)), tuner.recommend().candidate_id >= 0)
"""
    assert run(installed, code, tmp_path) == "4 True"
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
