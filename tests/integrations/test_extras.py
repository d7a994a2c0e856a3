"""Every adapter says which extra it needs, and nobody pays for those that are not used."""

from __future__ import annotations

import subprocess
import sys

ADAPTERS = {"botorch": "botorch", "optuna": "optuna", "ax": "ax", "ray": "ray"}


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_adapter_without_its_package_names_the_extra():
    """One process for all: each package in turn is as if it were not installed."""
    lines = python(
        "import importlib, sys\n"
        "import hyperzero_torch as hz\n"
        f"for adapter, package in {ADAPTERS}.items():\n"
        "    sys.modules[package] = None\n"
        "    try:\n"
        "        importlib.import_module(f'hyperzero_torch.integrations.{adapter}')\n"
        "    except hz.MissingExtraError as error:\n"
        "        print(adapter, isinstance(error, ImportError), str(error).replace('\\n', ' '))\n"
        "    del sys.modules[package]\n"
    ).splitlines()
    assert [line.split()[:2] for line in lines] == [[adapter, "True"] for adapter in ADAPTERS]
    for adapter, line in zip(ADAPTERS, lines):
        assert f"pip install 'hyperzero-torch[{adapter}]'" in line


def test_neither_the_package_nor_the_room_imports_any_of_them():
    found = python(
        "import sys, hyperzero_torch, hyperzero_torch.integrations, "
        "hyperzero_torch.integrations.search\n"
        f"print(sorted(set({sorted(ADAPTERS.values())}) & set(sys.modules)))"
    )
    assert found == "[]"
