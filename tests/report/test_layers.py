"""Within the report, imports point in one direction: data, figures, sections, html."""

import ast
from pathlib import Path

import pytest

from hyperzero_torch import report

FOLDER = Path(report.__file__).parent
LAYERS = ("data", "figures", "sections", "html")


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_earlier_ones(layer):
    allowed = {*LAYERS[: LAYERS.index(layer)]}
    files = sorted((FOLDER / layer).glob("*.py"))
    assert len(files) > 1
    for file in files:
        nodes = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)]
        names = {(n.module or n.names[0].name).split(".")[0] for n in nodes if n.level == 2}
        assert names <= allowed, f"{file.name} imports {names - allowed}"
