"""A plan does not depend on how many processes made it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyperzero_torch.errors import ConfigError
from hyperzero_torch.thompson.distributed import (
    all_reduce_sum,
    gather_parts,
    rank_and_world_size,
    sharing,
)

SCRIPT = str(Path(__file__).parents[1] / "support" / "ranked_round.py")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def decisions(folder, number):
    command = [sys.executable, *([*TORCHRUN, str(number)] if number > 1 else []), SCRIPT]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(number)]


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="no gloo here")
def test_two_ranks_make_the_plan_of_one_process_to_the_last_bit(tmp_path_factory):
    (alone,) = decisions(tmp_path_factory.mktemp("alone"), 1)
    assert decisions(tmp_path_factory.mktemp("ranks"), 2) == [alone, alone]


def test_without_a_process_group_there_is_one_rank():
    parts = [torch.ones(2, 1), torch.zeros(3, 1)]
    assert rank_and_world_size() == (0, 1)
    assert gather_parts(parts, lambda x: x.T.unsqueeze(-1), 1, 1).flatten().tolist() == [
        1,
        1,
        0,
        0,
        0,
    ]
    assert all_reduce_sum(parts[0]) is parts[0]


def test_sharing_without_a_process_group_is_refused():
    with pytest.raises(ConfigError, match="init_process_group"), sharing():
        pass
