"""What a platform is asked to serve in one round."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import ConfigError
from .space import Value


def write_atomically(path: str | Path, text: str) -> None:
    """Write a text file beside its place and move it there in one step.

    A file that is there already keeps its permissions; a new one gets the process's usual ones.

    Raises:
        ConfigError: the folder does not exist or cannot be written to; nothing is left behind.
    """
    path = Path(path)
    beside = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        try:
            descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:  # whatever ends the process half-way
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"{str(path)!r} cannot be written ({error.strerror}); name a file in a folder that "
            "exists and can be written to"
        ) from None


@dataclass(frozen=True, eq=False)
class Plan:
    """Arms and their shares of the traffic; all fields are in the order of ``candidate_ids``.

    Args:
        round: the round (hour) to serve it in.
        candidate_ids: the control (0) first, then the arms, ascending.
        parameters: what to serve, one mapping from parameter name to value per arm.
        theta: ``(arms, params)``, the same in numbers, float64, on the CPU.
        slots: traffic slots per arm: how many draws it won, and at least
            ``TunerConfig.newcomer_slots`` where it has never been served; 0 for the control,
            whose share is set by the configuration.
        shares: fraction of the traffic per arm, the control's included; sums to 1.
    """

    round: int
    candidate_ids: tuple[int, ...]
    parameters: tuple[dict[str, Value], ...]
    theta: Tensor
    slots: tuple[int, ...]
    shares: tuple[float, ...]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.candidate_ids)

    @property
    def control_share(self) -> float:
        """The control's fraction of the traffic."""
        return self.shares[0]

    def write(self, path: str | Path) -> None:
        """Write the plan as JSON, whole or not at all; its readers never see half of it.

        Raises:
            ConfigError: the folder does not exist or cannot be written to.
        """
        write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: ``{"round": ..., "arms": [{"candidate": ..., "share": ...}]}``."""
        return {
            "round": self.round,
            "arms": [
                {"candidate": c, "share": share, "slots": slots, "parameters": dict(parameters)}
                for c, share, slots, parameters in zip(
                    self.candidate_ids, self.shares, self.slots, self.parameters
                )
            ],
        }
