"""Who is raced: this package's tuner with its sources, and peers that are given the same ones."""

from __future__ import annotations

import json
import time
from importlib import import_module
from typing import Any, Protocol, cast

import hyperzero_torch as hz
from bench.quality.race.contender import Contender
from hyperzero_torch.simulate import Environment
from hyperzero_torch.study.plan import Plan
from hyperzero_torch.transfer import Source

PEERS = {
    "ax": "ax_peer:AxTransfer",
    "multitask": "botorch_peers:MultiTask",
    "rgpe": "botorch_peers:RankingWeighted",
}


class Target(Protocol):
    """A world that has relatives."""

    def sources(self, num: int, kind: str = "related") -> list[Source]:
        """The evidence of studies of ``num`` others."""


def target(
    family: str, seed: int, dims: int, share: float, traffic: float, richer: float = 1.0
) -> Environment:
    """The world that is tuned: ``surfaces`` (``families``) or ``regions``."""
    if family == "surfaces":
        from .families import MemberWorld

        return MemberWorld(seed, dims, share, richer, traffic=traffic)
    from .regions import TARGET, Region

    return Region(seed, TARGET, share, traffic, richer)


def make(label: str, world: Environment, seed: int) -> Contender:
    """A contender from ``[peer/]kind[:number][@option=value]``."""
    label, *options = label.split("@")
    name, _, kind = label.rpartition("/")
    kind, _, num = kind.partition(":")
    related = cast(Target, world)
    given = [] if kind == "cold" else related.sources(int(num or 1), kind)
    changes = {key: json.loads(value) for key, value in (o.split("=", 1) for o in options)}
    if not name:
        return Ours(world, seed, given, **changes)
    module, attribute = PEERS[name].split(":")
    kind_of = getattr(import_module(f".{module}", __package__), attribute)
    contender: Contender = kind_of(world, seed, given, **changes)
    return contender


class Ours(Contender):
    """The tuner as it comes, with sources or without."""

    def __init__(self, world: Environment, seed: int, given: list[Source], **changes: Any) -> None:
        super().__init__(world, seed)
        config = hz.TunerConfig(**changes)
        self.tuner = hz.Tuner(world.problem, config, seed=seed, sources=given)

    def plan(self, round: int) -> Plan:
        start = time.process_time()
        plan = self.tuner.ask(round)
        self.seconds = time.process_time() - start
        return plan
