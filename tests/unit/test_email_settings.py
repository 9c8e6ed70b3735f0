"""What the e-mail channel reads beyond the runbook's variables: keys, links, limits, folders."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mails import notification
from notifications_worker.channels.email import email_channel
from notifications_worker.settings import NotificationsSettings
from notifications_worker.unsubscribe_links import Subscription
from scripted_smtp import ScriptedSmtp
from worker_runtime.settings import SettingsError, load, warnings_about
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from pathlib import Path

    from notifications_worker.channels.dkim import PrivateKey

NO_HISTORY = "no DATABASE_URL: deliveries are remembered in Redis for 7 days, and there is no history"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(**variables: str) -> NotificationsSettings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load(NotificationsSettings)

    return make


def problems(settings: Any, **variables: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings(**variables)
    return caught.value.problems


def dkim(key: PrivateKey) -> dict[str, str]:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {"DKIM_DOMAIN": "Example.COM", "DKIM_SELECTOR": "mail2026", "DKIM_PRIVATE_KEY": pem}


ED25519 = Ed25519PrivateKey.generate()
SECRET = "a secret that is long enough for it"


def test_mail_is_signed_when_there_is_a_key(settings: Any) -> None:
    assert settings().signer() is None
    chosen = settings(EMAIL_FROM="noreply@mail.example.com", **dkim(ED25519))

    assert chosen.signer().name == "mail2026._domainkey.example.com"
    assert warnings_about(chosen) == [NO_HISTORY]
    assert "PRIVATE KEY" not in repr(chosen) + str(chosen.public())


def test_a_key_may_come_in_a_file(settings: Any, tmp_path: Path) -> None:
    variables = dkim(ED25519)
    (tmp_path / "dkim.pem").write_text(variables.pop("DKIM_PRIVATE_KEY"), encoding="utf-8")

    assert (
        settings(DKIM_PRIVATE_KEY_FILE=str(tmp_path / "dkim.pem"), **variables).signer().algorithm == "ed25519-sha256"
    )


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"DKIM_DOMAIN": "example.com"}, "DKIM_SELECTOR|DKIM_PRIVATE_KEY not set, and DKIM needs all three"),
        ({"DKIM_DOMAIN": "not a domain"}, "DKIM_DOMAIN|not a "),
        ({"DKIM_SELECTOR": "a;b"}, "DKIM_SELECTOR|not a "),
        ({"DKIM_PRIVATE_KEY": "hunter2"}, "DKIM_PRIVATE_KEY|not a private key in PEM"),
        ({"UNSUBSCRIBE_SECRET": "hunter2"}, "UNSUBSCRIBE_SECRET|shorter than 32 characters"),
        ({"UNSUBSCRIBE_SECRET": f"{SECRET},hunter2"}, "UNSUBSCRIBE_SECRET|shorter than 32 characters"),
        ({"STORAGE_URL": "https://example.com/files"}, "STORAGE_URL|neither a folder nor the URL"),
        ({"TEMPLATES_DIR": "/nowhere"}, "TEMPLATES_DIR|not a folder"),
        ({"SMTP_POOL_SIZE": "0"}, "SMTP_POOL_SIZE|is too small"),
        ({"SMTP_MESSAGES_PER_CONNECTION": "many"}, "SMTP_MESSAGES_PER_CONNECTION|is not a whole number"),
        ({"EMAIL_MAX_MESSAGE_BYTES": "1"}, "EMAIL_MAX_MESSAGE_BYTES|is too small"),
    ],
)
def test_a_wrong_setting_of_mail_says_what_is_wrong(settings: Any, variables: dict[str, str], said: str) -> None:
    [told] = problems(settings, **variables)

    variable, _, sentence = said.partition("|")
    assert told.startswith(variable)
    assert sentence in told
    assert "allowed: " in told
    assert "hunter2" not in told


def test_every_mistake_in_the_templates_is_told_at_the_start(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "hello.txt.j2").write_text("\n{% if %}", encoding="utf-8")
    (tmp_path / "hello.subject.j2").write_text("{{ name | shout }}", encoding="utf-8")
    [told] = problems(settings, TEMPLATES_DIR=str(tmp_path))

    assert "hello.txt.j2:2: " in told
    assert "hello.subject.j2:1: No filter named 'shout'" in told


@pytest.mark.parametrize(
    ("variables", "warning"),
    [
        (dkim(ED25519), "DKIM_DOMAIN=example.com does not go with EMAIL_FROM at intelliflow.com"),
        (
            dkim(rsa.generate_private_key(65537, 1024)) | {"DKIM_DOMAIN": "intelliflow.com"},
            "DKIM_PRIVATE_KEY has 1024 bits",
        ),
        ({"UNSUBSCRIBE_SECRET": SECRET}, "UNSUBSCRIBE_SECRET has no effect without PUBLIC_BASE_URL"),
        (
            {"UNSUBSCRIBE_SECRET": SECRET, "PUBLIC_BASE_URL": "http://crm.example.com", "CALLBACK_PORT": "3190"},
            "PUBLIC_BASE_URL is not https",
        ),
        (
            {"UNSUBSCRIBE_SECRET": SECRET, "PUBLIC_BASE_URL": "https://crm.example.com"},
            "CALLBACK_PORT is not set: links for unsubscribing",
        ),
    ],
)
def test_what_would_make_mail_distrusted_is_warned_about(
    settings: Any, variables: dict[str, str], warning: str
) -> None:
    told = [line for line in warnings_about(settings(**variables)) if line != NO_HISTORY]

    assert len(told) == 1
    assert told[0].startswith(warning)


def test_links_need_a_secret_and_an_address(settings: Any) -> None:
    assert settings().unsubscribe_links() is None
    chosen = settings(UNSUBSCRIBE_SECRET=f"{SECRET}, {SECRET[::-1]}", PUBLIC_BASE_URL="https://crm.example.com")

    assert chosen.unsubscribe_links().url(Subscription("t", "a")).startswith("https://crm.example.com/unsubscribe/")
    assert SECRET not in repr(chosen) + str(chosen.public())


async def test_the_pool_is_as_large_as_the_settings_say(settings: Any) -> None:
    async with ScriptedSmtp(extensions=()) as server:
        chosen = settings(
            SMTP_HOST="127.0.0.1", SMTP_PORT=str(server.port), SMTP_TLS="off",
            SMTP_POOL_SIZE="2", SMTP_MESSAGES_PER_CONNECTION="3",
        )  # fmt: skip
        async with email_channel(chosen) as channel:
            jobs = [job_for(notification({"body": "b"}, notificationId=str(number))) for number in range(12)]
            messages = [await channel.compose(job) for job in jobs]
            await asyncio.gather(*(channel.send(message) for message in messages))

    assert len(server.accepted) == 12
    assert server.most_at_once == 2
    assert len(server.conversations) == 4
