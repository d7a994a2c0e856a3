"""What the platform serves, in a card of health."""

from datetime import UTC, datetime

import pytest
from support.live_loop import HOUR

from hyperzero_torch.live.lease import card_of

BEGIN = 400_000 * HOUR


def at(hours):
    return datetime.fromtimestamp(BEGIN + hours * HOUR, UTC)


STAMP = {
    "schema": 1, "study": "feed", "epoch": "e", "round": 7, "plan": "p",
    "valid_from": BEGIN, "valid_until": BEGIN + 2 * HOUR,
}  # fmt: skip


@pytest.mark.parametrize(
    ("stamp", "last", "hours", "state", "words"),
    [
        (None, None, 0, "PASS", "serves no plan"),
        ({**STAMP, "round": -1}, None, 0, "PASS", "serves no plan"),
        (STAMP, 7, 1, "PASS", "round 7 is served until 2015-08-19 18:00 UTC"),
        (STAMP, 8, 1, "WATCH", "the last plan is that of round 8"),
        (STAMP, 7, 2, "ACT", "has run out (round 7, until 2015-08-19 18:00 UTC): the"),
        (STAMP, 7, -1, "ACT", "has not begun"),
        ({**STAMP, "withdrawn_seen": 9, "withdrawn_until": 7}, 7, 3, "PASS", "was withdrawn"),
        ({**STAMP, "study": "other"}, 7, 1, "ACT", "of study 'other'"),
        ({**STAMP, "valid_until": None}, 7, 99, "PASS", "without an end"),
    ],
)  # fmt: skip
def test_the_card(stamp, last, hours, state, words):
    card = card_of(stamp, "feed", last, at(hours))
    assert (card.name, card.state) == ("Lease", state)
    assert words in card.sentence.replace(f"{at(2):%Y-%m-%d %H:%M}", "2015-08-19 18:00")
    assert (state == "ACT") == bool(card.advice)
