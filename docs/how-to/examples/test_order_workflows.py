from pathlib import Path

import yaml
from order_workflows import discount, ship

from workflow_worker.testing import Ended, Trial

PAYMENT = yaml.safe_load(Path(__file__).with_name("order-payment.yaml").read_text())
FUNCTIONS = {"pricing.discount": discount}
ORDER = {"orderId": "7", "email": "ada@example.org", "total": 100}


async def test_who_pays_is_thanked_once_though_the_worker_is_killed() -> None:
    trial = Trial(PAYMENT, ORDER, functions=FUNCTIONS, killed_once=True)
    assert await trial.run() == Ended("waiting")
    trial.signal("invoice.paid", "7", {"amount": 90})
    assert await trial.run() == Ended("completed", {"price": 90, "paid": True})
    assert [mail["content"]["body"] for mail in trial.notifications] == ["Please pay 90.", "Thank you."]


async def test_after_three_days_nobody_waits_any_more() -> None:
    trial = Trial(PAYMENT, ORDER, functions=FUNCTIONS)
    await trial.run()
    assert await trial.after(3 * 86_400) == Ended("completed", {"price": 90, "paid": False})


async def test_what_is_no_order_is_refused() -> None:
    ended = await Trial(PAYMENT, {**ORDER, "total": -1}, functions=FUNCTIONS).run()
    assert ended.error == "INVALID_INPUT: total must be at least 0"


async def test_a_parcel_that_nobody_picks_is_released() -> None:
    trial = Trial(ship, killed_once=True)
    assert await trial.run() == Ended("waiting")
    assert await trial.after(3600) == Ended("completed", "released")
    assert trial.seconds >= 7 * 3600
