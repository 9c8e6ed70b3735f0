from __future__ import annotations

import itertools

import pytest

from notifications_worker.callbacks.effects import DeliveryState
from notifications_worker.callbacks.twilio import STATES, opt_out_type


def kept(reports: tuple[str, ...]) -> DeliveryState | None:
    state: DeliveryState | None = None
    for report in reports:
        if STATES[report].supersedes(state):
            state = STATES[report]
    return state


@pytest.mark.parametrize("end", ["delivered", "undelivered", "failed"])
def test_reports_in_any_order_and_twice_end_in_the_same_state(end: str) -> None:
    for order in itertools.permutations(["queued", "sending", "sent", end, end]):
        assert kept(order) is STATES[end]


def test_what_is_final_stays() -> None:
    assert kept(("undelivered", "delivered")) is DeliveryState.UNDELIVERED
    assert kept(("delivered", "failed")) is DeliveryState.DELIVERED


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({"Body": "STOP"}, "STOP"),
        ({"Body": " stop. \n"}, "STOP"),
        ({"Body": "StopAll"}, "STOP"),
        ({"Body": "opt-out"}, "STOP"),
        ({"Body": "Unsubscribe!"}, "STOP"),
        ({"Body": "START"}, "START"),
        ({"Body": "unstop"}, "START"),
        ({"Body": "don't stop"}, None),
        ({"Body": "Please stop sending"}, None),
        ({"Body": "HELP"}, None),
        ({"Body": ""}, None),
        ({}, None),
        ({"Body": "arrêt", "OptOutType": "STOP"}, "STOP"),
        ({"Body": "INFO", "OptOutType": "HELP"}, None),
        ({"Body": "STOP", "OptOutType": "HELP"}, None),
    ],
)
def test_only_a_word_that_says_so_stops_or_starts(fields: dict[str, str], wish: str | None) -> None:
    assert opt_out_type(fields) == wish
