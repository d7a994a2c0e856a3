"""Whether the fused kernels are used on the simulated card, also where they would work."""

import json
import sys
from pathlib import Path

from bench.device import guard

guard.load(Path(sys.argv[1]))

import torch  # noqa: E402

from bench.device.card import on_card, simulated  # noqa: E402
from hyperzero_torch.runtime import fused  # noqa: E402

fused.build.works = lambda _: True
with simulated():
    tensor = on_card(torch.ones(2, dtype=torch.float64))
    print(json.dumps({"device": str(tensor.device), "used": fused.usable(tensor)}))
