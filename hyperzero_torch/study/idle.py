"""Rounds since each candidate was last served: what retires candidates."""

from __future__ import annotations

from collections.abc import Iterator


class IdleRounds:
    """For each candidate, the rounds with draws since it was last served or crowded out.

    A round costs as much as it has arms: what is kept is when each candidate was served last, since
    a year has tens of thousands of candidates.
    """

    def __init__(self) -> None:
        self._num_rounds = 0
        self._since: list[int] = []

    def add(self) -> None:
        """One more candidate, which has not idled yet."""
        self._since.append(self._num_rounds)

    def pass_round(self) -> None:
        """A round with draws."""
        self._num_rounds += 1

    def reset(self, candidate: int) -> None:
        """A candidate was served, or competes anew."""
        self._since[candidate] = self._num_rounds

    def reset_all(self) -> None:
        """All candidates compete anew."""
        self._since = [self._num_rounds] * len(self._since)

    def copy(self) -> IdleRounds:
        """A copy that changes alone."""
        other = IdleRounds()
        other._num_rounds, other._since = self._num_rounds, list(self._since)
        return other

    def __getitem__(self, candidate: int) -> int:
        return self._num_rounds - self._since[candidate]

    def __iter__(self) -> Iterator[int]:
        return (self._num_rounds - since for since in self._since)
