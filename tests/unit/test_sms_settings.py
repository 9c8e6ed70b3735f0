from __future__ import annotations

from typing import Any

import pytest

from notifications_worker.callbacks.about import About
from notifications_worker.channels.sms import status_url
from notifications_worker.channels.sms_message import SmsMessage
from notifications_worker.settings import NotificationsSettings
from worker_runtime.settings import SettingsError, load, warnings_about

TWILIO = {
    "ENABLE_SMS": "true",
    "SMS_PROVIDER": "twilio",
    "SMS_FROM": "+15005550006",
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "hush-token",
}
MESSAGEBIRD = {
    "ENABLE_SMS": "true",
    "SMS_PROVIDER": "messagebird",
    "SMS_FROM": "IntelliFlow",
    "MESSAGEBIRD_ACCESS_KEY": "hush-key",
}
BOTH = TWILIO | {"SMS_FAILOVER_PROVIDER": "messagebird", "MESSAGEBIRD_ACCESS_KEY": "hush-key"}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(variables: dict[str, str]) -> NotificationsSettings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load(NotificationsSettings)

    return make


def test_the_defaults_are_the_runbooks(settings: Any) -> None:
    defaults = settings({})

    assert (defaults.enable_sms, defaults.sms_provider, defaults.sms_providers) == (False, "mock", ("mock",))
    assert (defaults.twilio_api_base_url, defaults.sms_max_segments) == ("https://api.twilio.com", 10)
    assert (defaults.callback_port, defaults.callback_url("/x")) == (None, None)


def test_a_failover_has_a_sender_of_its_own_where_one_is_set(settings: Any) -> None:
    both = settings(BOTH)

    assert both.sms_providers == ("twilio", "messagebird")
    assert (both.sms_sender("twilio"), both.sms_sender("messagebird")) == ("+15005550006", "+15005550006")
    assert settings({"SMS_FAILOVER_FROM": "IntelliFlow"}).sms_sender("messagebird") == "IntelliFlow"


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"SMS_PROVIDER": "pigeon"}, "SMS_PROVIDER='pigeon' is none of the choices"),
        ({"SMS_FROM": "+0"}, "SMS_FROM"),
        ({"SMS_FROM": "MG123 is no service"}, "SMS_FROM"),
        ({"SMS_MAX_SEGMENTS": "11"}, "SMS_MAX_SEGMENTS='11' is too large"),
        ({"TWILIO_ACCOUNT_SID": "SK1"}, "TWILIO_ACCOUNT_SID"),
        ({"TWILIO_ACCOUNT_SID": "AC1/../x"}, "TWILIO_ACCOUNT_SID"),
        ({"TWILIO_API_BASE_URL": "ftp://x"}, "TWILIO_API_BASE_URL"),
        ({"PUBLIC_BASE_URL": "ftp://x"}, "PUBLIC_BASE_URL"),
        ({"CALLBACK_PORT": "0"}, "CALLBACK_PORT"),
        ({"CALLBACK_PORT": "8443"}, "CALLBACK_PORT is set and PUBLIC_BASE_URL is not"),
        (BOTH | {"SMS_FAILOVER_PROVIDER": "twilio"}, "SMS_FAILOVER_PROVIDER=twilio is SMS_PROVIDER"),
        (BOTH | {"SMS_PROVIDER": "mock"}, "SMS_FAILOVER_PROVIDER is set and SMS_PROVIDER=mock"),
        (BOTH | {"SMS_FROM": "MG" + "a" * 32}, "SMS_FROM is a messaging service of Twilio's"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(settings: Any, variables: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(variables)

    [told] = caught.value.problems
    assert told.startswith(problem)
    assert "allowed: " in told
    assert "hush" not in told


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        (TWILIO, ["SMS_FROM", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"]),
        (MESSAGEBIRD, ["SMS_FROM", "MESSAGEBIRD_ACCESS_KEY"]),
    ],
)
def test_a_provider_without_its_login_is_refused_by_every_missing_name(
    settings: Any, variables: dict[str, str], missing: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        settings({name: variables[name] for name in ("ENABLE_SMS", "SMS_PROVIDER")})

    assert [line.split()[0] for line in caught.value.problems] == missing


def test_a_channel_that_is_off_needs_nothing(settings: Any) -> None:
    assert not settings({"SMS_PROVIDER": "twilio"}).enable_sms


@pytest.mark.parametrize(
    ("variables", "warning"),
    [
        ({"ENABLE_SMS": "true"}, "SMS_PROVIDER=mock: no SMS is sent to anybody"),
        (TWILIO | {"TWILIO_API_BASE_URL": "http://proxy.example.com"}, "TWILIO_API_BASE_URL is http"),
        (MESSAGEBIRD, "no MESSAGEBIRD_SIGNING_KEY: what becomes of an SMS"),
        (MESSAGEBIRD | {"MESSAGEBIRD_API_BASE_URL": "http://10.0.0.1"}, "MESSAGEBIRD_API_BASE_URL is http"),
    ],
)
def test_what_is_probably_not_meant_is_warned_about(settings: Any, variables: dict[str, str], warning: str) -> None:
    assert any(line.startswith(warning) for line in warnings_about(settings(variables)))


def test_a_test_server_on_this_machine_is_nothing_to_warn_about(settings: Any) -> None:
    told = warnings_about(settings(TWILIO | {"TWILIO_API_BASE_URL": "http://127.0.0.1:4010"}))

    assert not [line for line in told if "TWILIO" in line or "SMS" in line]


def test_no_secret_is_shown(settings: Any) -> None:
    loaded = settings(BOTH | {"TWILIO_WEBHOOK_KEY": "hush-shared", "MESSAGEBIRD_SIGNING_KEY": "hush-sign"})

    assert "hush" not in repr(loaded) + str(loaded.public())


def test_providers_are_told_where_to_call_back_and_about_what(settings: Any) -> None:
    message = SmsMessage("+15005550006", "hello", 1, "t-1", "größe/1")
    loaded = settings({"CALLBACK_PORT": "8443", "PUBLIC_BASE_URL": "https://hooks.example.com/sms/"})

    url = status_url(loaded, "twilio")(message)

    assert url is not None
    address, _, about = url.partition("?about=")
    assert address == "https://hooks.example.com/sms/callbacks/twilio/status"
    assert About.decoded(about) == About("t-1", "größe/1")
    assert status_url(None, "twilio")(message) is None


@pytest.mark.parametrize("text", ["", "%", "bm8", "WyJhIl0", "WzEsMl0", "=====", "é"])
def test_an_address_nobody_here_wrote_is_about_nothing(text: str) -> None:
    assert About.decoded(text) is None
