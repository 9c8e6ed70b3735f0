from typing import Any

import pytest
from orders_api.tasks import pack

from jobs_worker.testing import attempt
from worker_runtime.egress import EgressReply, NoAnswer


class Warehouse:
    """Stands for the other side: says what it is told to, and keeps what came."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.keys: list[str] = []

    async def request(self, _method: str, _url: str, _body: Any, headers: Any, _seconds: float, /) -> EgressReply:
        self.keys.append(headers["Idempotency-Key"])
        if (status := self.answers.pop(0)) == 0:
            raise NoAnswer("the warehouse did not answer")
        return EgressReply(status, {}, b"", whole=True, remote="")


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", "https://warehouse.example")


async def test_a_parcel_is_asked_for_under_one_key_until_there_is_an_answer() -> None:
    warehouse = Warehouse(0, 503, 409)
    ends = [await attempt(pack, {"order_id": "7"}, number=number, http=warehouse) for number in (1, 2, 3)]
    assert [end.status for end in ends] == ["todo", "todo", "succeeded"]
    assert ends[1].error == "CallFailed: HTTP_503: the server asks to try later, or has failed"
    assert len(set(warehouse.keys)) == 1


async def test_the_last_attempt_fails_and_what_is_no_order_at_once() -> None:
    assert (await attempt(pack, {"order_id": "7"}, number=8, http=Warehouse(500))).status == "failed"
    ended = await attempt(pack, {"order_id": "../7"})
    assert (ended.status, ended.error) == ("failed", "PermanentError: NO_ORDER_ID: order_id is letters and digits")
