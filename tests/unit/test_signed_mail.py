"""Whatever a mail holds, its signature verifies as the server gets it."""

from __future__ import annotations

import asyncio
from email.headerregistry import Address
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from dkim_verifier import verifies
from mails import composed, notification, stationery
from notifications_worker.channels.dkim import DkimSigner
from notifications_worker.channels.email_message import Letter, envelope
from notifications_worker.templates import Rendered
from notifications_worker.unsubscribe_links import UnsubscribeLinks
from scripted_smtp import ScriptedSmtp
from smtp_pools import PIPELINING, pool_of, relay
from worker_runtime.outcome import PermanentError

if TYPE_CHECKING:
    from pathlib import Path

KEY = Ed25519PrivateKey.generate()
SIGNER = DkimSigner("intelliflow.com", "mail2026", KEY)
LINKS = UnsubscribeLinks("https://crm.example.com", ["a secret that is long enough for it"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recipient": {"email": "ädä@example.com"}},
        {"metadata": {"category": "marketing"}},
        {"notificationId": "n" * 2000},
        {"notificationId": "ünï"},
        {"notificationId": "\u00a0\u3000x\u00a0"},
    ],
    ids=str,
)
@pytest.mark.parametrize("files", [(), ("text",), ("big", "text")])
async def test_it_verifies_as_the_server_gets_it(
    tmp_path: Path, changes: dict[str, Any], files: tuple[str, ...]
) -> None:
    (tmp_path / "text").write_bytes(b".\r\n..\r\n.leading dots \t\r\n\r\n")
    (tmp_path / "big").write_bytes(bytes(range(256)) * 2000)
    content = {
        "subject": "Grüße  an alle",
        "body": ".\n..\n.dots  and \t spaces \n\n\n",
        "htmlBody": "<p>ü</p>" * 100,
        "attachments": [{"filename": f"ü {key}", "storageKey": key} for key in files],
    }
    paper = stationery(tmp_path, signer=SIGNER, links=LINKS)
    message = await asyncio.to_thread(composed, content, paper, **changes)
    async with ScriptedSmtp(extensions=(*PIPELINING, "SMTPUTF8")) as server, pool_of(relay(server)) as pool:
        await pool.transmit(message)

    arrived = server.accepted[0].content.replace(b"\r\n..", b"\r\n.")
    assert verifies(arrived, 0, KEY.public_key())
    assert not verifies(arrived.replace(b"dots", b"spots"), 0, KEY.public_key())


@given(subject=TEXTS, body=TEXTS, html=TEXTS, name=TEXTS)
@example(subject="\u00a0x\u3000", body="", html="", name="0\x1f")
def test_it_verifies_whatever_the_words(subject: str, body: str, html: str, name: str) -> None:
    try:
        sender = Address(name, addr_spec="noreply@intelliflow.com")
        letter = Letter(notification({"body": "b"}), "ada@example.com", 1.0, Rendered(subject, body, html))
        message = envelope(letter, sender, SIGNER)
    except (PermanentError, ValueError):
        return  # A line break in the subject or in the sender's name.
    assert verifies(message.content, 0, KEY.public_key())
