"""The laws of ``Updater``, for platforms of your own.

    class TestMyPlatform(UpdaterContract):
        def make_updater(self, tmp_path):
            return MyUpdater(tmp_path / "plan.json")

        def served(self, updater, users, base):
            return [my_client(updater).assign(user) for user in users]

        def broken(self, updater):
            return my_platform_is_down(updater)

``pytest`` collects the laws as tests; this module itself does not import it.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from ..errors import HyperZeroError
from ..live.serve.checks import Updater
from ..live.serve.updater import PLANNED, Assignment
from ..problem.parameters import Value
from ..study.plan import Plan
from .values import HARD_TEXTS, HARD_VALUES, assert_raises, bits

# A suite computes a few dozen p-values; one of them is below this in about one of 10^5 suites.
_LEAST_P = 1e-7
_BASE: Mapping[str, Value] = {"w_click": 0.2, "depth": 3, "mode": "a", "fresh": False}
_SHARES = (0.35, 0.4, 0.2, 0.05)


class UpdaterContract:
    """The laws of ``Updater``: override ``make_updater`` and ``served``, and ``broken`` if you can.

    ``num_users`` are requested where shares are compared; their names are fixed, so that the
    outcome is the same in every run.
    """

    num_users: int = 20_000

    def make_updater(self, tmp_path: Path) -> Updater:
        """A new platform on which nothing was applied; ``tmp_path`` is an empty folder."""
        raise NotImplementedError

    def served(
        self, updater: Updater, users: Sequence[str], base: Mapping[str, Value]
    ) -> list[Assignment]:
        """The assignments that an application gets for these users now.

        ``base`` is its fallback: candidate 0, round None.
        """
        raise NotImplementedError

    def broken(self, updater: Updater) -> AbstractContextManager[Any] | None:
        """A context in which the platform cannot take a plan; None if there is none."""
        return None

    def test_it_is_an_updater_that_serves_nothing_yet(self, tmp_path: Path) -> None:
        """Before the first plan every user gets the base, outside any round."""
        updater = self.make_updater(tmp_path)
        assert isinstance(updater, Updater), f"{type(updater).__name__} lacks methods of Updater"
        for _ in range(2):
            for got in self.served(updater, _users(20), _BASE):
                _assert_fallback(got, _BASE)
            updater.withdraw()

    def test_it_serves_the_planned_shares(self, tmp_path: Path) -> None:
        """Each arm's users are within binomial error, and all arms together by chi-square."""
        updater = self.make_updater(tmp_path)
        for number, shares in enumerate((_SHARES, (1.0,), (0.0, 1.0), (0.01,) * 60 + (0.4,))):
            updater.apply(example_plan(number, shares))
            got = self.served(updater, _users(self.num_users), _BASE)
            assert {(a.round, a.reason) for a in got} == {(number, PLANNED)}
            candidates = torch.tensor([a.candidate for a in got])
            counts = torch.bincount(candidates, minlength=len(shares)).tolist()
            for count, share in zip(counts, shares, strict=True):
                _assert_binomial(count, self.num_users, share)
            assert_shares(counts, shares)

    def test_users_are_assigned_anew_each_round(self, tmp_path: Path) -> None:
        """Assignments of different rounds are independent, by chi-square."""
        updater = self.make_updater(tmp_path)
        users, rounds = _users(self.num_users), []
        for number, shares in ((7, _SHARES), (8, _SHARES), (9, (0.5, 0.1, 0.4))):
            updater.apply(example_plan(number, shares))
            rounds.append([a.candidate for a in self.served(updater, users, _BASE)])
        for first, second in itertools.combinations(rounds, 2):
            assert_independent(first, second)

    def test_a_part_of_the_users_takes_part(self, tmp_path: Path) -> None:
        """The same in every round; others get the control, and a larger share only adds users."""
        updater = self.make_updater(tmp_path)
        users, before = _users(self.num_users), set[str]()
        for number, part in ((3, 0.1), (4, 0.1), (5, 0.4), (6, 1.0)):
            plan = example_plan(number, _SHARES, experiment_share=part)
            updater.apply(plan)
            got = dict(zip(users, self.served(updater, users, plan.parameters[0])))
            inside = {user for user, a in got.items() if a.round is not None}
            assert before <= inside, "a user who took part does not any more"
            assert number != 4 or before == inside, "who takes part changed from round to round"
            _assert_binomial(len(inside), self.num_users, part)
            for user in got.keys() - inside:
                _assert_fallback(got[user], plan.parameters[0])
            counts = [sum(got[user].candidate == c for user in inside) for c in plan.candidate_ids]
            assert_shares(counts, _SHARES)
            before = inside

    def test_a_user_gets_the_same_all_round(self, tmp_path: Path) -> None:
        """Also if asked again, in another order, or after the same plan is applied once more."""
        updater = self.make_updater(tmp_path)
        plan, users = example_plan(5, _SHARES), _users(300)
        updater.apply(plan)
        first = self.served(updater, users, _BASE)
        assert self.served(updater, users[::-1], _BASE)[::-1] == first
        updater.apply(plan)
        assert self.served(updater, users, _BASE) == first

    def test_parameters_come_back_bit_for_bit(self, tmp_path: Path) -> None:
        """Every kind of value under every kind of name is served as planned."""
        updater = self.make_updater(tmp_path)
        names = (*HARD_TEXTS, *(f"p{i}" for i in range(len(HARD_VALUES))))
        values = (*HARD_TEXTS, *HARD_VALUES)
        arms = [{n: values[(i + a) % len(names)] for i, n in enumerate(names)} for a in range(30)]
        plan = example_plan(2**53, (1 / 30,) * 30, arms)
        updater.apply(plan)
        got = self.served(updater, [*_users(400), *HARD_TEXTS, "0", "null", "é" * 3000], arms[0])
        assert {a.round for a in got} == {2**53}
        assert {a.candidate for a in got} == set(range(30))
        for a in got:
            assert bits(a.parameters) == bits(arms[a.candidate])

    def test_a_plan_replaces_the_one_before_it(self, tmp_path: Path) -> None:
        """Candidates, parameters and the round become those of the new plan."""
        updater = self.make_updater(tmp_path)
        updater.apply(example_plan(3, (0.2,) * 5))
        base: dict[str, Value] = {"other": 0.25}
        arms: list[Mapping[str, Value]] = [base, {"other": 0.5}]
        for number in (4, 2):  # the round need not be a later one
            updater.apply(example_plan(number, (0.5, 0.5), arms))
            got = self.served(updater, _users(100), base)
            assert {(a.candidate, a.round) for a in got} == {(0, number), (1, number)}
            assert all(a.parameters == arms[a.candidate] for a in got)

    def test_a_plan_that_cannot_be_served_changes_nothing(self, tmp_path: Path) -> None:
        """A plan without control, with invalid shares or invalid values raises an error of ours."""
        updater = self.make_updater(tmp_path)
        updater.apply(example_plan(1, _SHARES))
        users = _users(100)
        before = self.served(updater, users, _BASE)
        for plan in impossible_plans():
            _assert_refused(updater, plan)
            assert self.served(updater, users, _BASE) == before

    def test_a_failure_leaves_the_last_plan_being_served(self, tmp_path: Path) -> None:
        """While the platform is broken and afterwards; then the new plan can be applied."""
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
        assert {a.round for a in self.served(updater, users, _BASE)} == {2}

    def test_withdrawn_every_user_gets_the_control(self, tmp_path: Path) -> None:
        """Outside any round, however often it is called, until the next plan."""
        updater = self.make_updater(tmp_path)
        users = _users(100)
        for number in (1, 2):
            plan = example_plan(number, _SHARES)
            updater.apply(plan)
            assert len({a.candidate for a in self.served(updater, users, _BASE)}) > 1
            for _ in range(2):
                updater.withdraw()
                for got in self.served(updater, users, plan.parameters[0]):
                    _assert_fallback(got, plan.parameters[0])

    def test_without_a_name_a_user_takes_no_part(self, tmp_path: Path) -> None:
        """All such users would have the same hash, and one arm would get all of them."""
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
    experiment_share: float = 1.0,
) -> Plan:
    """A plan with these shares; parameters are made up if not given."""
    num = len(shares)
    made_up = [{**_BASE, "w_click": (c + 1) / (num + 1), "depth": c} for c in range(num)]
    return Plan(
        round=number,
        candidate_ids=tuple(range(num) if candidate_ids is None else candidate_ids),
        parameters=tuple(dict(p) for p in (made_up if parameters is None else parameters)),
        theta=torch.zeros(num, 2, dtype=torch.float64),
        slots=(0,) * num,
        shares=tuple(shares),
        experiment_share=experiment_share,
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
        *(example_plan(2, (0.5, 0.5), experiment_share=s) for s in (0.0, -0.1, 1.5, nan)),
    ]


def assert_shares(counts: Sequence[int], shares: Sequence[float]) -> None:
    """Check counts of users against shares by Pearson's chi-square; a share of 0 has no user."""
    observed = torch.tensor(counts, dtype=torch.float64)
    expected = observed.sum() * torch.tensor(shares, dtype=torch.float64)
    assert not bool(observed[expected == 0].any()), f"users of arms without a share: {counts}"
    served = expected > 0
    _assert_likely(observed[served], expected[served], int(served.sum()) - 1)


def assert_independent(first: Sequence[Hashable], second: Sequence[Hashable]) -> None:
    """Check that two labels of the same users are independent, by Pearson's chi-square."""
    places = []
    for labels in (first, second):
        index = {label: place for place, label in enumerate(dict.fromkeys(labels))}
        places.append(torch.tensor([index[label] for label in labels]))
    rows, columns = (int(place.max()) + 1 for place in places)
    observed = torch.bincount(places[0] * columns + places[1], minlength=rows * columns).double()
    observed = observed.reshape(rows, columns)
    expected = observed.sum(1, keepdim=True) * observed.sum(0) / observed.sum()
    _assert_likely(observed, expected, (rows - 1) * (columns - 1))


def _assert_likely(observed: Tensor, expected: Tensor, degrees: int) -> None:
    if degrees == 0:
        return
    statistic = (observed - expected).square().div(expected).sum()
    shape = torch.tensor(degrees / 2, dtype=torch.float64)
    p_value = float(torch.special.gammaincc(shape, statistic / 2))
    assert p_value > _LEAST_P, f"chi-square {statistic:.1f} at {degrees} degrees: p = {p_value}"


def _assert_binomial(count: int, num: int, share: float) -> None:
    """Within 5.5 standard errors (4e-8 in the normal limit), and three more for small counts."""
    error = (num * share * (1.0 - share)) ** 0.5
    bound = 5.5 * error + (3.0 if 0.0 < share < 1.0 else 0.0)
    assert abs(count - num * share) <= bound, f"{count} of {num} users for a share of {share}"


def _users(num: int) -> list[str]:
    return [f"user {i}" for i in range(num)]


def _assert_fallback(got: Assignment, base: Mapping[str, Value]) -> None:
    assert (got.candidate, got.round) == (0, None), f"the control outside any round, not {got}"
    assert got.reason != PLANNED
    assert got.parameters == base


def _assert_refused(updater: Updater, plan: Plan) -> None:
    assert_raises(HyperZeroError, lambda: updater.apply(plan), f" for {plan.to_dict()}")
