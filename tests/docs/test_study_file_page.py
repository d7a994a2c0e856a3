"""The reference of the study file is that of the models; the glossary has the package's words."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml

import hyperzero_torch as hz

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))
made = importlib.import_module("study_file")
sys.path.remove(str(DOCS))
PAGE = (DOCS / "reference/study_file.md").read_text(encoding="utf-8")


def test_the_page_is_current():
    assert made.text() == PAGE, "run python docs/study_file.py"


@pytest.mark.parametrize("model", made.SECTIONS, ids=lambda m: m.__name__)
def test_every_key_has_a_line_with_words(model):
    described = made.descriptions(model)
    for name in model.model_fields:
        assert described.get(name, "").endswith((".", ")")), name
        assert f"| `{name}` |" in PAGE


def test_every_section_of_a_study_file_is_on_the_page():
    """A model that another one holds is a section too, so that none is forgotten."""
    from pydantic import BaseModel

    def within(annotation):
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        for part in getattr(annotation, "__args__", ()):
            yield from within(part)

    for model in made.SECTIONS:
        for info in model.model_fields.values():
            assert set(within(info.annotation)) <= set(made.SECTIONS)


def test_defaults_and_bounds_are_those_that_a_file_meets(tmp_path):
    """Some lines of the page, tried on files."""
    file = tmp_path / "tuning.yaml"
    base = {
        "parameters": [{"kind": "float", "name": "w", "low": 0, "high": 1}],
        "base": {"w": 0.5}, "metrics": ["views"], "objective": "views",
    }  # fmt: skip

    def load(**more):
        file.write_text(yaml.safe_dump(base | more))
        return hz.StudyConfig.from_file(file)

    assert "| `max_arms` | whole number, >= 1 | `256` |" in PAGE
    assert load().traffic.max_arms == 256
    with pytest.raises(hz.ConfigError, match="max_arms"):
        load(traffic={"max_arms": 0})
    assert "| `objective` | text | **required** |" in PAGE
    assert "names with number" in re.search(r"`plausible_lift` \| ([^|]+)", PAGE)[1]
    assert load(traffic={"plausible_lift": {"views": 0.05}}).traffic.plausible_lift


def test_the_glossary_has_the_words_of_the_package():
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| ([^|]+?) \| [^|]+.*\|$", text, re.M)[1:]
    assert words[1:] == sorted(words[1:], key=str.lower)
    ours = re.findall(r"^    (\w+) {2,}\S", (hz.__doc__ or "").split("Glossary")[1], re.M)
    assert len(ours) > 10
    assert set(ours) <= set(words)
