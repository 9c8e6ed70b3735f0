"""Getting off a list: the headers in the mail, the page behind them, and what a mail provider posts (RFC 8058)."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from dkim_verifier import tags_of, unfolded_fields, verifies
from mails import RECIPIENT, composed, parsed, refusal, stationery
from notifications_worker.callbacks.effects import LoggedUpdates
from notifications_worker.callbacks.routes import callback_routes
from notifications_worker.callbacks.server import callback_server
from notifications_worker.channels.dkim import DkimSigner
from notifications_worker.settings import NotificationsSettings
from notifications_worker.unsubscribe_links import Subscription, UnsubscribeLinks
from worker_runtime.settings import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "a secret that is long enough for it"
KEY = Ed25519PrivateKey.generate()
BULK: dict[str, Any] = {"metadata": {"category": "marketing"}}


def links(base_url: str = "https://crm.example.com/hooks/", *secrets: str) -> UnsubscribeLinks:
    return UnsubscribeLinks(base_url, secrets or (SECRET,))


class RememberedSuppressions:
    """Stands for the ledger's, which tests/integration/test_ledger.py has."""

    def __init__(self, error: Exception | None = None) -> None:
        self.added: list[tuple[str, str, str, str]] = []
        self._error = error

    async def reason(self, _tenant: str, _channel: str, _address: str) -> str | None:
        return None

    async def add(self, tenant: str, channel: str, address: str, reason: str) -> None:
        if self._error:
            raise self._error
        self.added.append((tenant, channel, address, reason))

    async def remove(self, _tenant: str, _channel: str, _address: str) -> bool:
        return False


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {"UNSUBSCRIBE_SECRET": SECRET, "PUBLIC_BASE_URL": "https://crm.example.com/hooks"}.items():
        monkeypatch.setenv(name, value)

    @asynccontextmanager
    async def serving(suppressions: RememberedSuppressions) -> AsyncIterator[str]:
        routes = callback_routes(load(NotificationsSettings), LoggedUpdates(), suppressions)
        async with callback_server(routes, host="127.0.0.1", port=0) as server:
            yield f"http://127.0.0.1:{server.port}"

    return serving


def path_for(tenant: str, address: str) -> str:
    return links().url(Subscription(tenant, address)).removeprefix("https://crm.example.com/hooks")


async def answer(method: str, url: str, **more: Any) -> tuple[int, str, Any]:
    async with aiohttp.ClientSession() as session, session.request(method, url, **more) as response:
        return response.status, await response.text(), response.headers


def bulk_mail(**more: Any) -> Any:
    return composed({"subject": "s", "body": "b", "htmlBody": "<p>b</p>"}, stationery(links=links(), **more), **BULK)


def test_bulk_mail_says_how_to_get_off_the_list_and_signs_it() -> None:
    envelope = bulk_mail(signer=DkimSigner("intelliflow.com", "mail2026", KEY))
    mail = parsed(envelope)
    link = mail["List-Unsubscribe"]

    assert link.startswith("<https://crm.example.com/hooks/unsubscribe/")
    assert link.endswith(">")
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail["Precedence"] == "bulk"
    assert f"\r\nList-Unsubscribe: {link}\r\n".encode() in envelope.content
    signed = tags_of(unfolded_fields(envelope.content.decode())[0].partition(":")[2])["h"].split(":")
    assert {"List-Unsubscribe", "List-Unsubscribe-Post"} <= set(signed)
    assert verifies(envelope.content, 0, KEY.public_key())
    assert envelope.signed_by == ("mail2026._domainkey.intelliflow.com",)


def test_a_resend_has_the_same_link() -> None:
    assert bulk_mail() == bulk_mail()


@pytest.mark.parametrize("metadata", [None, {}, {"category": "transactional"}, {"category": None}, {"category": ["x"]}])
def test_other_mail_has_no_list_to_get_off(metadata: Any) -> None:
    mail = parsed(composed({"body": "b"}, stationery(links=links()), metadata=metadata))

    assert not {"List-Unsubscribe", "List-Unsubscribe-Post", "Precedence"} & set(mail.keys())


def test_without_a_link_no_bulk_mail_is_sent() -> None:
    error = refusal({"body": "b"}, **BULK)

    assert error.code == "UNSUBSCRIBE_UNAVAILABLE"
    assert "UNSUBSCRIBE_SECRET" in error.sentence
    assert "PUBLIC_BASE_URL" in error.sentence


def test_a_link_names_nobody() -> None:
    url = links().url(Subscription("tenant-1", RECIPIENT))
    token = url.rpartition("/")[2]
    decoded = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))

    for hidden in ("tenant-1", RECIPIENT, "ada", "example.com"):
        assert hidden not in url.removeprefix("https://crm.example.com")
        assert hidden.encode() not in decoded


@given(tenant=st.text(), address=st.text())
def test_a_link_stands_for_whom_it_was_made_for(tenant: str, address: str) -> None:
    token = links().url(Subscription(tenant, address)).rpartition("/")[2]

    assert links().opened(token) == (tenant, address)
    assert links("https://x", "another secret, just as long as it").opened(token) is None


def test_a_secret_can_be_replaced_while_mails_with_the_old_one_are_about() -> None:
    old = links().url(Subscription("t", "a")).rpartition("/")[2]
    both = links("https://x", "another secret, just as long as it", SECRET)

    assert both.opened(old) == ("t", "a")
    assert both.url(Subscription("t", "a")).rpartition("/")[2] != old


@given(token=st.text() | st.binary().map(lambda noise: base64.urlsafe_b64encode(noise).decode()))
def test_what_was_not_made_here_is_not_a_link(token: str) -> None:
    assert links().opened(token) is None


def test_a_link_that_was_tampered_with_is_not_one() -> None:
    token = links().url(Subscription("t", "a@example.com")).rpartition("/")[2]
    for position in range(0, len(token) - 1, 7):
        changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        assert links().opened(changed) is None


class Buttons(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.methods: list[str] = []
        self.asks_the_web = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.asks_the_web |= bool({"src", "href", "action"} & set(found))
        if tag == "form":
            self.methods.append(found.get("method") or "")
        if tag == "button":
            self.fields[found.get("name") or ""] = found.get("value") or ""


async def test_looking_changes_nothing_and_the_button_does_what_it_says(serve: Any) -> None:
    suppressions = RememberedSuppressions()
    async with serve(suppressions) as server:
        url = server + path_for("tenant-1", RECIPIENT)
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "GET"):
            status, page, headers = await answer(method, url)
        assert status == 200
        assert suppressions.added == []
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert RECIPIENT not in page
        buttons = Buttons()
        buttons.feed(page)
        assert (buttons.methods, buttons.fields) == (["post"], {"List-Unsubscribe": "One-Click"})
        assert not buttons.asks_the_web
        status, page, _ = await answer("POST", url, data=buttons.fields)

    assert status == 200
    assert "You are unsubscribed" in page
    assert suppressions.added == [("tenant-1", "EMAIL:BULK", RECIPIENT, "UNSUBSCRIBED")]


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"List-Unsubscribe": "One-Click"}},
        {"data": b"List-Unsubscribe=One-Click", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"data": aiohttp.FormData({"List-Unsubscribe": "One-Click"}, default_to_multipart=True)},
        {},
    ],
    ids=["form", "bytes", "multipart", "nothing"],
)
async def test_one_click_of_a_mail_provider_needs_no_more_than_the_link(serve: Any, body: Any) -> None:
    suppressions = RememberedSuppressions()
    async with serve(suppressions) as server:
        url = server + path_for("t", RECIPIENT)
        status, _, headers = await answer("POST", url, allow_redirects=False, **body)

    assert status == 200
    assert "Set-Cookie" not in headers
    assert len(suppressions.added) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("token", ["x", "A" * 5000, "%00", "..%2f..", "%F0%9F%98%80"])
async def test_a_link_that_is_none_does_nothing(serve: Any, method: str, token: str) -> None:
    suppressions = RememberedSuppressions()
    async with serve(suppressions) as server:
        status, page, headers = await answer(method, f"{server}/unsubscribe/{token}")

    assert status == 404
    assert token not in page
    assert headers["Cache-Control"] == "no-store"
    assert suppressions.added == []


async def test_nobody_is_told_so_while_it_cannot_be_written_down(serve: Any) -> None:
    async with serve(RememberedSuppressions(ConnectionError("gone"))) as server:
        status, page, headers = await answer("POST", server + path_for("t", RECIPIENT))

    assert (status, headers["Retry-After"]) == (503, "60")
    assert "You are unsubscribed" not in page
