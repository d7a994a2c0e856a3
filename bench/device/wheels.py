"""Carries the wheels that a whole study needs to a machine with a bare PyTorch and no network.

    python -m bench.device.wheels FOLDER [--python 3.11]       here: downloads them
    python -m bench.cuda --wheels FOLDER                       there: installs and uses them

The kernels (``hyperzero_torch.stats``, ``.surrogate``, ``.thompson``) and the rows of
``bench.cuda`` need none of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: A study in memory needs these beside torch and numpy, and what they bring with them.
NEEDED = ("pydantic", "pyyaml", "narwhals")
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    here = ".".join(map(str, sys.version_info[:2]))
    parser.add_argument("--python", default=here, help="version on the other machine")
    options = parser.parse_args(arguments)
    subprocess.run(download(options.folder, options.python), check=True)


def download(folder: Path, python: str) -> list[str]:
    """The command that downloads the wheels for Linux on x86."""
    return [
        *(sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--dest", str(folder)),
        *("--python-version", python, "--platform", "manylinux2014_x86_64"),
        *("--platform", "manylinux_2_28_x86_64", "--constraint", str(CONSTRAINTS), *NEEDED),
    ]


def install(folder: Path) -> Path:
    """Install the wheels of a folder beside them, without a network; the folder to import from.

    Raises:
        SystemExit: there are no wheels, or pip refuses them; says why.
    """
    wheels = sorted(map(str, folder.glob("*.whl")))
    if not wheels:
        raise SystemExit(
            f"{folder} has no wheels; make them with: python -m bench.device.wheels {folder}"
        )
    site = folder / "site"
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
        *("--upgrade", "--target", str(site), *wheels),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pip cannot install the wheels of {folder}: {done.stderr[-2000:]}")
    return site


if __name__ == "__main__":
    main()
