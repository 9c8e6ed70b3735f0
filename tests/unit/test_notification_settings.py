from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme

from notifications_worker.channels import CHANNELS
from notifications_worker.channels.email import relay
from notifications_worker.channels.webhook_signature import read_key
from notifications_worker.settings import NotificationsSettings
from worker_runtime.settings import SettingsError, load, warnings_about

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
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


def test_the_defaults_are_the_runbooks(settings: Any) -> None:
    defaults = settings()

    assert (defaults.health_port, defaults.enable_email) == (3102, True)
    assert (defaults.smtp_host, defaults.smtp_port, defaults.smtp_user, defaults.smtp_password) == (
        "localhost",
        587,
        None,
        None,
    )
    assert defaults.email_from == "noreply@intelliflow.com"
    assert warnings_about(defaults) == [NO_HISTORY]


@pytest.mark.parametrize(
    ("variables", "tls"),
    [
        ({}, "starttls"),
        ({"SMTP_PORT": "25"}, "starttls"),
        ({"SMTP_PORT": "2525"}, "starttls"),
        ({"SMTP_PORT": "465"}, "implicit"),
        ({"SMTP_TLS": "implicit"}, "implicit"),
        ({"SMTP_PORT": "465", "SMTP_TLS": "starttls"}, "starttls"),
        ({"SMTP_TLS": "off"}, "off"),
    ],
)
def test_tls_goes_by_the_port(settings: Any, variables: dict[str, str], tls: str) -> None:
    chosen = relay(settings(**variables))

    assert chosen.tls == tls
    assert (chosen.tls_context is None) == (tls == "off")


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"SMTP_PORT": "0"}, "SMTP_PORT"),
        ({"SMTP_TLS": "maybe"}, "SMTP_TLS"),
        ({"SMTP_CA_FILE": "/nowhere/ca.pem"}, "SMTP_CA_FILE"),
        ({"EMAIL_FROM": "nobody"}, "EMAIL_FROM"),
        ({"EMAIL_FROM": "a@example.com, b@example.com"}, "EMAIL_FROM"),
        ({"WEBHOOK_SIGNING_SECRET": "secret"}, "WEBHOOK_SIGNING_SECRET"),
        ({"WEBHOOK_SIGNING_SECRET": "whsec_c2hvcnQ="}, "WEBHOOK_SIGNING_SECRET"),
        ({"WEBHOOK_TIMEOUT_MS": "60001"}, "WEBHOOK_TIMEOUT_MS"),
        ({"WEBHOOK_DISABLE_AFTER_MS": "0"}, "WEBHOOK_DISABLE_AFTER_MS"),
        ({"SMTP_USER": "worker"}, "SMTP_USER is set and SMTP_PASSWORD is not"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(settings: Any, variables: dict[str, str], problem: str) -> None:
    [told] = problems(settings, **variables)

    assert told.startswith(problem)
    assert "allowed: " in told


def test_a_password_crosses_no_network_in_the_clear(settings: Any) -> None:
    login = {"SMTP_USER": "worker", "SMTP_PASSWORD": "hunter2", "SMTP_TLS": "off"}

    [told] = problems(settings, **login, SMTP_HOST="mail.example.com")
    assert told.startswith("SMTP_TLS=off would send SMTP_PASSWORD in the clear")
    assert "hunter2" not in told
    for host in ("localhost", "127.0.0.1", "::1"):
        assert settings(**login, SMTP_HOST=host).tls == "off"


@pytest.mark.parametrize(
    ("variables", "warning"),
    [
        ({"ENABLE_EMAIL": "false"}, "ENABLE_EMAIL=false: no channel is on"),
        ({"SMTP_TLS": "off", "SMTP_HOST": "mail.example.com"}, "SMTP_TLS=off: mail crosses the network"),
        ({"ENABLE_WEBHOOK": "true"}, "no WEBHOOK_SIGNING_SECRET: webhooks to endpoints without a secret of their own"),
        ({"WEBHOOK_SIGNING_SECRET": SECRET}, "WEBHOOK_SIGNING_SECRET has no effect without ENABLE_WEBHOOK=true"),
        ({"SMTP_PASSWORD": "hunter2"}, "SMTP_PASSWORD has no effect without SMTP_USER"),
        ({"SMTP_PORT": "465", "SMTP_TLS": "starttls"}, "SMTP_TLS=starttls on port 465"),
        ({"SMTP_HOTS": "mail"}, "SMTP_HOTS is not a variable of this worker; did you mean SMTP_HOST?"),
    ],
)
def test_what_is_probably_not_meant_is_warned_about(settings: Any, variables: dict[str, str], warning: str) -> None:
    told, _ = sorted(warnings_about(settings(**variables)), key=lambda line: line == NO_HISTORY)

    assert told.startswith(warning)


def test_the_password_may_come_in_a_file_and_is_never_shown(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n", encoding="utf-8")
    loaded = settings(SMTP_USER="worker", SMTP_PASSWORD_FILE=str(tmp_path / "password"))

    assert relay(loaded).password == "hunter2"
    assert "hunter2" not in repr(loaded) + repr(relay(loaded)) + str(loaded.public())


def test_a_ca_file_replaces_the_systems(settings: Any, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = relay(settings(SMTP_CA_FILE=str(tmp_path / "ca.pem"))).tls_context

    assert context is not None
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("written", "name", "address"),
    [
        ("noreply@example.com", "", "noreply@example.com"),
        ("Sales <sales@example.com>", "Sales", "sales@example.com"),
        ('"Sales, Inc." <sales@example.com>', "Sales, Inc.", "sales@example.com"),
    ],
)
def test_the_sender_may_have_a_name(settings: Any, written: str, name: str, address: str) -> None:
    sender = settings(EMAIL_FROM=written).sender()

    assert (sender.display_name, sender.addr_spec) == (name, address)


def test_every_channel_has_its_switch(settings: Any) -> None:
    assert all(isinstance(settings().enabled(queue), bool) for queue in CHANNELS)


def test_webhooks_are_off_and_their_secret_is_never_shown(settings: Any) -> None:
    assert not settings().enabled("WEBHOOK")
    assert settings().webhook_keys() == ()
    loaded = settings(ENABLE_WEBHOOK="true", WEBHOOK_SIGNING_SECRET=SECRET)

    assert (loaded.enabled("WEBHOOK"), loaded.webhook_timeout_ms, loaded.webhook_disable_after_ms) == (
        True,
        15_000,
        432_000_000,
    )
    assert [key.id for key in loaded.webhook_keys()] == [read_key(SECRET).id]
    assert SECRET[6:] not in repr(loaded) + str(loaded.public())
    assert warnings_about(loaded) == [NO_HISTORY]
