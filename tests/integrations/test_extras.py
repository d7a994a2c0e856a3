"""Every adapter says which extra it needs, and nobody pays for those that are not used."""

from __future__ import annotations

import subprocess
import sys

import pytest

ADAPTERS = {"botorch": "botorch", "optuna": "optuna", "ax": "ax", "ray": "ray"}


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_without_its_package_names_the_extra(adapter):
    found = python(
        f"import sys; sys.modules[{ADAPTERS[adapter]!r}] = None\n"  # as if it were not installed
        "import hyperzero_torch as hz\n"
        "try:\n"
        f"    import hyperzero_torch.integrations.{adapter}\n"
        "except hz.MissingExtraError as error:\n"
        "    print(isinstance(error, ImportError), error)\n"
    )
    assert found.startswith("True")
    assert f"pip install 'hyperzero-torch[{adapter}]'" in found


def test_neither_the_package_nor_the_room_imports_any_of_them():
    found = python(
        "import sys, hyperzero_torch, hyperzero_torch.integrations, "
        "hyperzero_torch.integrations.search\n"
        f"print(sorted(set({sorted(ADAPTERS.values())}) & set(sys.modules)))"
    )
    assert found == "[]"
