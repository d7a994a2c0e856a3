"""Users exposed to violations and the price of exploring: sums over all rounds, in any length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_study import CONFIG, make, play

import hyperzero_torch as hz
from hyperzero_torch.report.data.exposure_rows import Round, by_round, exposure, totals
from hyperzero_torch.report.data.facts import collect
from hyperzero_torch.report.sections.exposure import _price
from hyperzero_torch.study.history import CONTROL
from hyperzero_torch.tuner.limits import prospect

pytestmark = pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")


def test_users_are_those_of_the_readings_and_exposed_by_the_model():
    like = make().problem
    tight = hz.Problem(like.space, like.base, like.metrics, "gain", ["guard >= -0.2%"])
    tuner = hz.Tuner(tight, CONFIG)
    play(tuner, 6)
    facts = collect(tuner)
    rounds = by_round(facts)
    total = totals(rounds)
    history = tuner.history
    x = tuner.problem.space.to_unit(history.theta)
    unsafe = 1 - prospect(facts.model, x).prob_feasible
    unsafe[CONTROL] = 0.0  # the base meets it
    users = exposed = 0.0
    for number, plan in history.plans.items():
        count = np.nan_to_num(history.tables[number].count).max(1).sum()
        shares = dict(zip(plan.candidates, plan.shares))
        users += count
        exposed += count * sum(share * float(unsafe[c]) for c, share in shares.items())
    assert total.users == pytest.approx(users)
    assert total.exposed == pytest.approx(exposed)
    assert 0 < total.exposed < total.users


@given(
    st.integers(1, 2000),
    st.integers(0, 10**6),
    st.floats(0, 0.1),
    st.floats(0, 1),
    st.floats(-1, 1),
)
def test_a_long_study_is_not_exposed_to_less(num, users, violation, exposed, price):
    """The table averages blocks of rounds; what it all comes to is not summed over them."""
    rounds = [Round(r, users, 0.1, 0.0, 0.0, violation, exposed, price) for r in range(num)]
    total = totals(rounds)
    assert total.users == pytest.approx(num * users)
    assert total.exposed == pytest.approx(num * users * exposed)
    assert total.harm == pytest.approx(100 * num * users * violation)
    if users:
        assert total.price == pytest.approx(price)
    assert sum(1 for _ in exposure(rounds).rows) <= num


def test_rounds_without_readings_count_for_nothing():
    known = Round(0, 100.0, 0.1, 0.0, 0.0, 0.01, 0.5, 0.02)
    total = totals([known, known._replace(number=1, users=np.nan, price=0.9)])
    assert (total.users, total.exposed, total.price) == (100.0, 50.0, pytest.approx(0.02))
    assert np.isnan(totals([]).price)


def test_a_price_below_zero_is_a_gain():
    assert (_price(0.02).label, _price(0.02).value) == ("Price of exploring", "2.00 %")
    assert (_price(-0.02).label, _price(-0.02).value) == ("Gained while exploring", "2.00 %")
    assert _price(np.nan).label == "Price of exploring"
