"""What the page says of SMS is what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from notifications_worker.callbacks.effects import LoggedUpdates
from notifications_worker.callbacks.routes import callback_routes
from notifications_worker.callbacks.twilio import START_WORDS, STOP_WORDS
from notifications_worker.channels.sms import SmsChannel
from notifications_worker.channels.sms_errors import ErrorClass
from notifications_worker.channels.sms_mock import MockSms
from notifications_worker.channels.sms_replies import Refusal, by_status
from notifications_worker.channels.sms_settings import NEEDS
from notifications_worker.notification import Notification
from notifications_worker.settings import NotificationsSettings
from notifications_worker.templates import Templates
from worker_runtime.settings import load
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "send-sms.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def rows(head: str) -> list[list[str]]:
    table = PAGE[PAGE.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


async def test_the_job_of_the_page_is_sent() -> None:
    [text] = blocks("json")
    job = job_for(Notification.model_validate_json(text), job_id="n", name="send", queue="sms", created_at=1.0)
    message = await SmsChannel([MockSms()], Templates(), max_segments=10, require_assigned=False).compose(job)

    assert (message.to, message.parts) == (json.loads(text)["recipient"]["phone"], 1)


def test_what_a_provider_needs_is_what_the_settings_ask_for() -> None:
    for provider, needs, _ in rows("| `SMS_PROVIDER` |"):
        variables = {name.lower() for name in re.findall(r"`(\w+)`", needs)}
        assert variables == set(NEEDS[provider.split("`")[1]]) - {"sms_from"}


def test_the_classes_of_the_page_are_the_tables() -> None:
    told = rows("| class | what follows |")

    assert [row[0].strip("`") for row in told] == list(ErrorClass)
    by_code = {401: 2, 402: 2, 403: 2, 404: 2, 405: 2, 407: 2, 302: 2, 429: 3, 408: 5, 500: 5, 503: 5, 400: 0, 409: 0}
    for status, place in by_code.items():
        assert by_status(status) is Refusal("twilio", status).kind is list(ErrorClass)[place]


def test_the_words_of_the_page_are_those_that_count() -> None:
    section = PAGE[PAGE.index("## Those who want no more") :]
    stop, start = section.split("suppresses the", 1)

    assert set(re.findall(r"`([A-Z]+)`", stop)) == STOP_WORDS
    assert set(re.findall(r"`([A-Z]+)`", start.split("lifts", 1)[0])) == START_WORDS


def test_the_addresses_of_the_page_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    [variables] = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks("text")]
    for name, value in {**variables, "TWILIO_AUTH_TOKEN": "x", "MESSAGEBIRD_SIGNING_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    no_suppressions: Any = None
    routes = callback_routes(load(NotificationsSettings), LoggedUpdates(), no_suppressions)

    told = {found for row in rows("| address |") for found in re.findall(r"`(GET|POST) (/[\w/]+)`", row[0])}
    assert told == {(route.method, route.path) for route in routes} - {("POST", "/callbacks/messagebird/status")}


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = blocks("python")
    exec(compile(example, "send-sms.md", "exec"), {})

    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
