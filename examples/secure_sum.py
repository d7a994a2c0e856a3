"""Secure aggregation between three domains: their sum is published, their own numbers are not.

    pip install 'hyperzero-torch[privacy]'
    python examples/secure_sum.py exchange            # all three domains on this machine

or, with each domain on its own machine and a folder that all of them reach:

    python examples/secure_sum.py exchange --domain north
    python examples/secure_sum.py exchange --domain east
    python examples/secure_sum.py exchange --domain south

All domains have served the same three settings, fixed beforehand. Each process writes its public
key into the folder, masks the sums of its users' clipped values, and writes the masked words. A
private key never leaves its process. With the words of all three domains anyone can compute the
sum; with fewer of them the words are uniformly random numbers. Public keys must reach the domains
unforged: this example trusts everyone who can write to the folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from hyperzero_torch.transfer.sharing.noise import Clip, Sums, collect
from hyperzero_torch.transfer.sharing.secure_sum import (
    Agreement,
    Masked,
    Party,
    flatten,
    total,
    unflatten,
)

DOMAINS = ("north", "east", "south")
SETTINGS = 3
CLIPS = [Clip(0.0, 10.0)]  # of a user's watch time, in minutes; chosen before any data
BOUND = 2.0**40  # largest sum of one domain, in steps of the grid


def sums_of(domain: str) -> Sums:
    """One domain's users, simulated: watch times, clipped and summed by setting."""
    generator = torch.Generator().manual_seed(DOMAINS.index(domain))
    setting = torch.randint(SETTINGS, (3000,), generator=generator)
    minutes = 4.0 + 0.5 * setting + torch.randn(3000, dtype=torch.float64, generator=generator)
    return collect(minutes.unsqueeze(1), setting, SETTINGS, CLIPS)


def take_part(domain: str, folder: Path, seconds: float) -> None:
    """One domain's side: exchange keys, send masked sums, and read the total."""
    party, sums = Party(domain), sums_of(domain)
    write(folder / f"{domain}.key", party.public_key)
    keys = {name: await_file(folder / f"{name}.key", seconds) for name in DOMAINS}
    values = flatten(sums)
    agreement = Agreement("watch time of May", keys, len(values), BOUND, fraction_bits=0)
    write(folder / f"{domain}.words", party.mask(values, agreement).words.tobytes())
    sent = [
        Masked(name, agreement.digest, np.frombuffer(words, dtype=np.uint64))
        for name in DOMAINS
        for words in [await_file(folder / f"{name}.words", seconds)]
    ]
    together = unflatten(total(agreement, sent), sums)
    # The line and its end at once: three processes write to the same output.
    print(f"{domain}: watch time over all domains, in minutes: {means(together)}\n", end="")


def means(sums: Sums) -> list[float]:
    """Mean watch time by setting, from sums of values mapped to [-1, 1]."""
    low, high = CLIPS[0]
    unit = sums.first[:, 0] / sums.count[:, 0]
    return [round(low + (high - low) * (1 + float(u)) / 2, 4) for u in unit]


def write(path: Path, content: bytes) -> None:
    """Write a file in one step, so that nobody reads half of it."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(content)
    part.replace(path)


def await_file(path: Path, seconds: float) -> bytes:
    """The content of a file that another domain writes."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise SystemExit(
                f"{path.name} did not arrive within {seconds:g} seconds. Without one domain the "
                "masks do not cancel: start again in an empty folder with all of them"
            )
        time.sleep(0.05)
    return path.read_bytes()


def main() -> None:
    """One domain, or all three as processes of this machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that all domains reach; empty at first")
    parser.add_argument("--domain", choices=DOMAINS, help="take part as this one; by default all")
    parser.add_argument("--seconds", type=float, default=120.0, help="to wait for the others")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.domain is not None:
        take_part(given.domain, given.folder, given.seconds)
        return
    if any(given.folder.iterdir()):
        raise SystemExit(f"{given.folder} is not empty; a session's keys are used once")
    command = [sys.executable, __file__, str(given.folder), "--seconds", str(given.seconds)]
    running = [subprocess.Popen([*command, "--domain", name]) for name in DOMAINS]
    if sum(process.wait() for process in running):
        raise SystemExit("a domain failed")


if __name__ == "__main__":
    main()
