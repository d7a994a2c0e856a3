"""Every adapter says which extra it needs, and nobody pays for those that are not used."""

from __future__ import annotations

import subprocess
import sys

ADAPTERS = {
    "botorch": "botorch", "optuna": "optuna", "ax": "ax", "ray": "ray", "http": "fastapi",
}  # fmt: skip
EXTRAS = {"http": "serve"}  # where an extra is not named like its adapter
# One process for all: what is imported without asking, then each package as if not installed.
CODE = f"""
import importlib, sys
import hyperzero_torch as hz
import hyperzero_torch.integrations
import hyperzero_torch.integrations.search
print(sorted(set({sorted(ADAPTERS.values())}) & set(sys.modules)))
for adapter, package in {ADAPTERS}.items():
    sys.modules[package] = None
    try:
        importlib.import_module(f"hyperzero_torch.integrations.{{adapter}}")
    except hz.MissingExtraError as error:
        print(adapter, isinstance(error, ImportError), str(error).replace("\\n", " "))
    del sys.modules[package]
"""


def test_no_adapter_is_imported_unasked_and_without_its_package_it_names_the_extra():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported, *lines = done.stdout.splitlines()
    assert imported == "[]"
    assert [line.split()[:2] for line in lines] == [[adapter, "True"] for adapter in ADAPTERS]
    for adapter, line in zip(ADAPTERS, lines):
        assert f"pip install 'hyperzero-torch[{EXTRAS.get(adapter, adapter)}]'" in line
