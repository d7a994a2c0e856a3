"""The contenders by name. Each is imported only when it runs, so that peers stay optional."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from hyperzero_torch.simulate import Environment

from .contender import Contender

CONTENDERS = {
    "hyperzero": "ours:HyperZero",
    "hyperzero_paper": "ours:HyperZeroPaper",
    "hyperzero_paper_own": "ours:HyperZeroPaperOwn",
    "hyperzero_sync": "ours:Synchronous",
    "hyperzero_raw": "ours:Raw",
    "hyperzero_paper_sync": "ours:SynchronousPaper",
    "hyperzero_paper_raw": "ours:RawPaper",
    "random": "simple:Random",
    "skopt": "scikit_optimize:Penalised",
    "skopt_unconstrained": "scikit_optimize:Unconstrained",
    "qlognei": "qlognei:QLogNEI",
    "scbo": "scbo:SCBO",
    "optuna_gp": "optuna_samplers:OptunaGP",
    "optuna_tpe": "optuna_samplers:OptunaTPE",
    "ax_default": "ax_client:AxDefault",
    "ax_thompson": "ax_bandits:AxThompson",
    "ax_ebts": "ax_bandits:AxEmpiricalBayes",
}


def make(label: str, world: Environment, seed: int) -> Contender:
    """A contender from ``name`` or ``name@option=value@option=value``."""
    name, *options = label.split("@")
    module, attribute = CONTENDERS[name].split(":")
    kind = getattr(import_module(f".{module}", __package__), attribute)
    pairs = (option.split("=", 1) for option in options)
    contender: Contender = kind(world, seed, **{key: _value(value) for key, value in pairs})
    return contender


def _value(text: str) -> Any:
    """A number or true or false, as JSON has them; else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def check(label: str) -> str:
    """The label, if there is such a contender."""
    name = label.split("@")[0]
    if name not in CONTENDERS:
        raise ValueError(f"no contender {name!r}; there are {', '.join(CONTENDERS)}")
    return label
