"""With torch and numpy alone the kernels work; a study says what else it needs."""

from __future__ import annotations

import subprocess
import sys

BLOCK = """
import sys
class Missing:
    names = set({names!r})
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import warnings
warnings.simplefilter("error")
"""
# Every dependency beside torch and numpy, and what these bring with them.
ALL = (
    *("pydantic", "pydantic_core", "yaml", "gpytorch", "linear_operator", "sqlalchemy"),
    *("narwhals", "typer", "rich", "scipy", "sklearn", "jaxtyping", "pandas"),
)
KERNELS = """
import torch
import hyperzero_torch as hz
import hyperzero_torch.stats, hyperzero_torch.surrogate, hyperzero_torch.thompson
x = torch.rand(12, 2, dtype=torch.float64)
mean = torch.stack([x[:, 0], -x[:, 1]], 1)
posterior = hz.Surrogate().fit(x, mean, torch.full_like(mean, 0.01))
space = hz.SearchSpace([hz.Float("a", 0.0, 1.0), hz.Int("b", 1, 4)], ["a + b <= 4"])
problem = hz.Problem(space, {"a": 0.5, "b": 2}, ["gain", "guard"], "gain", ["guard >= -50%"])
hz.thompson.propose(posterior, problem, 50, 2, num_starts=1)
hz.thompson.select(*posterior.marginal(x), problem, 20)
state = hz.Evidence(5, 2)
hz.moments.summarise(x, torch.arange(12) % 3, 3)
try:
    hz.Tuner
except ModuleNotFoundError as error:
    print(error)
"""
STUDY = """
sys.path.insert(0, "tests")
from support.small_study import make, play
tuner = make()
play(tuner, 2)
print(tuner.recommend().candidate_id is not None)
"""


def run(names, code):
    script = BLOCK.format(names=list(names)) + code
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_the_kernels_need_torch_and_numpy_alone():
    message = run(ALL, KERNELS)
    assert "hyperzero_torch.Tuner needs " in message
    assert "pip install hyperzero-torch" in message
    assert "hyperzero_torch.stats, .surrogate and .thompson" in message


def test_a_study_in_memory_needs_three_packages_more():
    """``python -m bench.device.wheels`` carries them to a machine with a bare PyTorch."""
    needed = {"pydantic", "pydantic_core", "yaml", "narwhals"}
    assert run([name for name in ALL if name not in needed], STUDY) == "True"
