"""The laws of ``Updater``, for platforms of your own.

    class TestMyPlatform(UpdaterContract):
        def make_updater(self, tmp_path):
            return MyUpdater(tmp_path / "plan.json")

        def served(self, updater, users, base):
            return [my_client(updater).assign(user) for user in users]

        def broken(self, updater):
            return my_platform_is_down(updater)

and ``pytest`` collects the laws as tests. This module itself needs no pytest.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch

from ..errors import HyperZeroError
from ..live.serve.updater import PLANNED, Assignment, Updater
from ..problem.parameters import Value
from ..study.plan import Plan

#: Values that templates, markup, references and number formats stumble over.
HARD_VALUES: tuple[Value, ...] = (
    0.0, -0.0, 5e-324, 1e-05, 1e308, 0.1 + 0.2, 1 / 3, 1.0, 1, 0, -7, 2**53 + 1, 2**63, True, False,
    "", "0", "null", "true", "1e-05", "\x00", "\ud800", "\u2028",
)  # fmt: skip
HARD_TEXTS = (
    'a"b\'c`d', "\\", "{{", "{{targetingKey}}", "${HOME}", "%s {0} {x}", "$ref", "$flagd.flagKey",
    '{"var": "targetingKey"}', '"}, "state": "DISABLED", {"', "</script><script>alert(1)</script>",
    "<!--", "Größe", "点击率", "🙂", "e\u0301", "a\nb\r\tc", " ", "var", "fractional", "__proto__",
    "w" * 20_000,
)  # fmt: skip

# Of the few dozen p-values that a suite looks at, the smallest is below this once in 10^5 suites.
_LEAST_P = 1e-7
_BASE: Mapping[str, Value] = {"w_click": 0.2, "depth": 3, "mode": "a", "fresh": False}
_SHARES = (0.35, 0.4, 0.2, 0.05)


class UpdaterContract:
    """The laws of ``Updater``: override ``make_updater`` and ``served``, and ``broken`` if you can.

    ``num_users`` are asked for where shares are compared; their names are fixed, so that the
    outcome is the same in every run.
    """

    num_users: int = 20_000

    def make_updater(self, tmp_path: Path) -> Updater:
        """A new platform on which nothing was applied; ``tmp_path`` is an empty folder."""
        raise NotImplementedError

    def served(
        self, updater: Updater, users: Sequence[str], base: Mapping[str, Value]
    ) -> list[Assignment]:
        """What an application gets for these users now.

        ``base`` is what it falls back to: candidate 0, round None.
        """
        raise NotImplementedError

    def broken(self, updater: Updater) -> AbstractContextManager[Any] | None:
        """A context in which the platform cannot take a plan; None where it cannot be had."""
        return None

    def test_it_is_an_updater_that_serves_nothing_yet(self, tmp_path: Path) -> None:
        """Before the first plan every user gets the base and takes no part; withdrawing is free."""
        updater = self.make_updater(tmp_path)
        assert isinstance(updater, Updater), f"{type(updater).__name__} lacks methods of Updater"
        for _ in range(2):
            for got in self.served(updater, _users(20), _BASE):
                _assert_fallback(got, _BASE)
            updater.withdraw()

    def test_it_serves_the_planned_shares(self, tmp_path: Path) -> None:
        """Each arm's users within its binomial error, all together by chi-square."""
        updater = self.make_updater(tmp_path)
        for number, shares in enumerate((_SHARES, (1.0,), (0.0, 1.0), (0.01,) * 60 + (0.4,))):
            updater.apply(example_plan(number, shares))
            got = self.served(updater, _users(self.num_users), _BASE)
            assert {(one.round, one.reason) for one in got} == {(number, PLANNED)}
            counts = Counter(one.candidate for one in got)
            for candidate, share in enumerate(shares):
                _assert_binomial(counts[candidate], self.num_users, share)
            expected = [share * self.num_users for share in shares]
            _assert_likely(*_goodness([counts[c] for c in range(len(shares))], expected))

    def test_users_are_assigned_anew_each_round(self, tmp_path: Path) -> None:
        """What a user got in one round says nothing of the next one, by contingency chi-square."""
        updater = self.make_updater(tmp_path)
        users, rounds = _users(self.num_users), []
        for number, shares in ((7, _SHARES), (8, _SHARES), (9, (0.5, 0.1, 0.4))):
            updater.apply(example_plan(number, shares))
            rounds.append([one.candidate for one in self.served(updater, users, _BASE)])
        for i, first in enumerate(rounds):
            for second in rounds[i + 1 :]:
                _assert_likely(*_contingency(Counter(zip(first, second))))

    def test_a_user_gets_the_same_all_round(self, tmp_path: Path) -> None:
        """Asked again, in another order, after the same plan once more: the same."""
        updater = self.make_updater(tmp_path)
        plan, users = example_plan(5, _SHARES), _users(300)
        updater.apply(plan)
        first = self.served(updater, users, _BASE)
        assert self.served(updater, users[::-1], _BASE)[::-1] == first
        updater.apply(plan)
        assert self.served(updater, users, _BASE) == first

    def test_parameters_come_back_bit_for_bit(self, tmp_path: Path) -> None:
        """Every kind of value under every kind of name; what is served is the plan's."""
        updater = self.make_updater(tmp_path)
        names = (*HARD_TEXTS, *(f"p{i}" for i in range(len(HARD_VALUES))))
        values = (*HARD_TEXTS, *HARD_VALUES)
        arms = [{n: values[(i + a) % len(names)] for i, n in enumerate(names)} for a in range(30)]
        plan = example_plan(2**53, (1 / 30,) * 30, arms)
        updater.apply(plan)
        got = self.served(updater, [*_users(400), *HARD_TEXTS, "0", "null", "é" * 3000], arms[0])
        assert {one.round for one in got} == {2**53}
        assert {one.candidate for one in got} == set(range(30))
        for one in got:
            assert _bits(one.parameters) == _bits(arms[one.candidate])

    def test_a_plan_replaces_the_one_before_it(self, tmp_path: Path) -> None:
        """Candidates, parameters and the round are the new plan's, whatever they were before."""
        updater = self.make_updater(tmp_path)
        updater.apply(example_plan(3, (0.2,) * 5))
        base: dict[str, Value] = {"other": 0.25}
        arms: list[Mapping[str, Value]] = [base, {"other": 0.5}]
        for number in (4, 2):  # a round need not be later: one may go back
            updater.apply(example_plan(number, (0.5, 0.5), arms))
            got = self.served(updater, _users(100), base)
            assert {(one.candidate, one.round) for one in got} == {(0, number), (1, number)}
            assert all(one.parameters == arms[one.candidate] for one in got)

    def test_a_plan_that_cannot_be_served_changes_nothing(self, tmp_path: Path) -> None:
        """No control, shares that are none, values that are none: our errors."""
        updater = self.make_updater(tmp_path)
        updater.apply(example_plan(1, _SHARES))
        users = _users(100)
        before = self.served(updater, users, _BASE)
        for plan in impossible_plans():
            _assert_refused(updater, plan)
            assert self.served(updater, users, _BASE) == before

    def test_a_failure_leaves_the_last_plan_being_served(self, tmp_path: Path) -> None:
        """While the platform is broken, and after it; then the plan can be applied."""
        updater = self.make_updater(tmp_path)
        context = self.broken(updater)
        if context is None:
            raise SkipTest("this platform cannot be broken on purpose")
        users = _users(100)
        updater.apply(example_plan(1, _SHARES))
        before = self.served(updater, users, _BASE)
        with context:
            _assert_refused(updater, example_plan(2, (0.1, 0.9)))
        assert self.served(updater, users, _BASE) == before
        updater.apply(example_plan(2, (0.1, 0.9)))
        assert {one.round for one in self.served(updater, users, _BASE)} == {2}

    def test_withdrawn_every_user_gets_the_control(self, tmp_path: Path) -> None:
        """Outside any round, as often as it is asked for, until the next plan."""
        updater = self.make_updater(tmp_path)
        users = _users(100)
        for number in (1, 2):
            plan = example_plan(number, _SHARES)
            updater.apply(plan)
            assert len({one.candidate for one in self.served(updater, users, _BASE)}) > 1
            for _ in range(2):
                updater.withdraw()
                for got in self.served(updater, users, plan.parameters[0]):
                    _assert_fallback(got, plan.parameters[0])

    def test_without_a_name_a_user_takes_no_part(self, tmp_path: Path) -> None:
        """They would all hash to one place, and one arm would get them all."""
        updater = self.make_updater(tmp_path)
        plan = example_plan(1, (0.0, 1.0))
        updater.apply(plan)
        (got,) = self.served(updater, [""], plan.parameters[0])
        _assert_fallback(got, plan.parameters[0])


def example_plan(
    number: int,
    shares: Sequence[float],
    parameters: Sequence[Mapping[str, Value]] | None = None,
    candidate_ids: Sequence[int] | None = None,
) -> Plan:
    """A plan of these shares; the parameters are made up where none are given."""
    num = len(shares)
    made_up = [{**_BASE, "w_click": (c + 1) / (num + 1), "depth": c} for c in range(num)]
    return Plan(
        round=number,
        candidate_ids=tuple(range(num) if candidate_ids is None else candidate_ids),
        parameters=tuple(dict(p) for p in (made_up if parameters is None else parameters)),
        theta=torch.zeros(num, 2, dtype=torch.float64),
        slots=(0,) * num,
        shares=tuple(shares),
    )


def impossible_plans() -> list[Plan]:
    """Plans that no platform can serve."""
    nan, inf = float("nan"), float("inf")
    bad: list[Any] = [{"w": nan}, {"w": -inf}, {"w": None}, {"w": [1]}, {"w": {}}, {3: 1.0}, {}]
    return [
        *(example_plan(2, (0.5, 0.5), [{"w": 0.0}, parameters]) for parameters in bad),
        *(example_plan(2, (0.5, s)) for s in (0.6, -0.5, nan, inf, 0.0)),
        example_plan(2, (0.5, 1.0, -0.5)),
        example_plan(2, ()),
        example_plan(2, (0.5, 0.5), candidate_ids=(1, 2)),
        example_plan(2, (0.5, 0.5), candidate_ids=(0, 0)),
        example_plan(2, (0.5, 0.5), candidate_ids=(0, -1)),
        example_plan(2, (0.5, 0.5), candidate_ids=(0,)),
        example_plan(-1, (0.5, 0.5)),
        example_plan(2, (0.5, 0.5), [{"w": 0.0}]),
    ]


def _users(num: int) -> list[str]:
    return [f"user {i}" for i in range(num)]


def _bits(parameters: Mapping[str, Value]) -> dict[str, object]:
    """Types and bits, so that -0.0 is not 0.0, and neither 1 nor True is 1.0."""
    return {
        name: (type(value), struct.pack("<d", value) if isinstance(value, float) else value)
        for name, value in parameters.items()
    }


def _assert_fallback(got: Assignment, base: Mapping[str, Value]) -> None:
    assert (got.candidate, got.round) == (0, None), f"the control outside any round, not {got}"
    assert got.reason != PLANNED
    assert got.parameters == base


def _assert_refused(updater: Updater, plan: Plan) -> None:
    try:
        updater.apply(plan)
    except HyperZeroError:
        return
    raise AssertionError(f"apply must raise a HyperZeroError for {plan.to_dict()}")


def _assert_binomial(count: int, num: int, share: float) -> None:
    """Within 5.5 standard errors (4e-8 in the normal limit), and three more for small counts."""
    error = (num * share * (1.0 - share)) ** 0.5
    bound = 5.5 * error + (3.0 if 0.0 < share < 1.0 else 0.0)
    assert abs(count - num * share) <= bound, f"{count} of {num} users for a share of {share}"


def _assert_likely(statistic: float, degrees: int) -> None:
    if degrees == 0:
        return
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64)
    p_value = float(torch.special.gammaincc(half[0], half[1]))
    assert p_value > _LEAST_P, f"chi-square {statistic:.1f} at {degrees} degrees: p = {p_value}"


def _goodness(counts: Sequence[int], expected: Sequence[float]) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; arms without a share must have no user."""
    assert all(n == 0 for n, e in zip(counts, expected) if e == 0.0)
    terms = [(n - e) ** 2 / e for n, e in zip(counts, expected) if e > 0.0]
    return sum(terms), len(terms) - 1


def _contingency(pairs: Counter[tuple[int, int]]) -> tuple[float, int]:
    """Pearson's statistic of independence and its degrees of freedom."""
    rows: Counter[int] = Counter()
    columns: Counter[int] = Counter()
    for (row, column), count in pairs.items():
        rows[row] += count
        columns[column] += count
    num = pairs.total()
    terms = [
        (pairs[row, column] - rows[row] * columns[column] / num) ** 2
        / (rows[row] * columns[column] / num)
        for row in rows
        for column in columns
    ]
    return sum(terms), (len(rows) - 1) * (len(columns) - 1)
