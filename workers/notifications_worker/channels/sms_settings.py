"""What the SMS channel reads."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from notifications_worker.callbacks.settings import CallbackSettings
from worker_runtime.settings import Allowed
from worker_runtime.settings.kinds import WebAddress  # noqa: TC001  pydantic reads annotations

__all__ = ["SmsProviderName", "SmsSettings"]

SmsProviderName = Literal["twilio", "messagebird", "mock"]
# Providers refuse longer texts: Twilio takes 1600 characters.
MOST_SEGMENTS = 10
ACCOUNT = re.compile(r"AC[0-9A-Za-z]{1,64}")
MESSAGING_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")
SENDER = re.compile(r"\+[1-9][0-9]{6,14}|[A-Za-z0-9 ]{1,11}|" + MESSAGING_SERVICE.pattern)
NEEDS = {
    "twilio": ("sms_from", "twilio_account_sid", "twilio_auth_token"),
    "messagebird": ("sms_from", "messagebird_access_key"),
    "mock": (),
}


def _sender(value: str) -> str:
    if not SENDER.fullmatch(value):
        raise ValueError("not a sender")
    return value


def _account(value: str) -> str:
    if not ACCOUNT.fullmatch(value):
        raise ValueError("not an account's SID")
    return value


Sender = Annotated[
    str,
    AfterValidator(_sender),
    Allowed("a number in E.164, up to 11 letters and digits, or the MG... of a messaging service of Twilio's"),
]
AccountSid = Annotated[str, AfterValidator(_account), Allowed("AC and letters or digits, as Twilio's console shows it")]


class SmsSettings(CallbackSettings):
    """SMS."""

    enable_sms: bool = Field(default=False, description="deliver SMS; otherwise its queue is left alone")
    sms_provider: SmsProviderName = Field("mock", description="who sends SMS; mock sends nothing and logs")
    sms_failover_provider: Literal["twilio", "messagebird"] | None = Field(
        None, description="who sends an SMS that the first provider surely has not got"
    )
    sms_from: Sender | None = Field(None, description="sender of SMS")
    sms_failover_from: Sender | None = Field(None, description="sender at `SMS_FAILOVER_PROVIDER`, if another")
    sms_max_segments: int = Field(
        MOST_SEGMENTS, ge=1, le=MOST_SEGMENTS, description="a text that takes more parts is refused"
    )
    sms_require_assigned_number: bool = Field(
        default=False, description="refuse a number in a range that its country has not assigned"
    )
    twilio_account_sid: AccountSid | None = Field(None, description="Twilio account")
    twilio_auth_token: SecretStr | None = Field(None, description="Twilio token; callbacks are signed with it too")
    twilio_webhook_key: SecretStr | None = Field(
        None, description="shared key of Twilio's, where callbacks are signed with one instead of the token"
    )
    twilio_api_base_url: WebAddress = Field(
        "https://api.twilio.com", description="Twilio's address, for tests and proxies"
    )
    messagebird_access_key: SecretStr | None = Field(None, description="MessageBird key")
    messagebird_signing_key: SecretStr | None = Field(
        None, description="signs MessageBird's callbacks; without it none is asked for"
    )
    messagebird_api_base_url: WebAddress = Field(
        "https://rest.messagebird.com", description="MessageBird's address, for tests and proxies"
    )

    @property
    def sms_providers(self) -> tuple[SmsProviderName, ...]:
        """Who may be asked to send, the first one in front."""
        return (self.sms_provider, self.sms_failover_provider) if self.sms_failover_provider else (self.sms_provider,)

    def sms_sender(self, provider: SmsProviderName) -> str:
        """Return the sender of SMS that leave through a provider."""
        failover = self.sms_failover_from if provider == self.sms_failover_provider else None
        return failover or self.sms_from or ""

    @model_validator(mode="after")
    def _providers_have_what_they_need(self) -> Self:
        if self.enable_sms and (wrong := list(self._sms_contradictions())):
            raise ValueError("\n".join(wrong))
        return self

    def _sms_contradictions(self) -> list[str]:
        return [*self._missing(), *self._impossible()]

    def _missing(self) -> list[str]:
        return [
            f"{name.upper()} is not set, and the SMS provider {provider} needs it"
            for provider in self.sms_providers
            for name in NEEDS[provider]
            if not getattr(self, name)
        ]

    def _impossible(self) -> list[str]:
        found = []
        if self.sms_failover_provider == self.sms_provider:
            found.append(f"SMS_FAILOVER_PROVIDER={self.sms_provider} is SMS_PROVIDER; allowed: the other one")
        if self.sms_failover_provider and self.sms_provider == "mock":
            found.append("SMS_FAILOVER_PROVIDER is set and SMS_PROVIDER=mock; allowed: twilio and messagebird")
        if "messagebird" in self.sms_providers and MESSAGING_SERVICE.fullmatch(self.sms_sender("messagebird")):
            found.append(
                "SMS_FROM is a messaging service of Twilio's, which messagebird does not have; allowed: a number"
            )
        return found

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        found = super().warnings()
        if not self.enable_sms:
            return found
        if self.sms_provider == "mock":
            found.append("SMS_PROVIDER=mock: no SMS is sent to anybody; results name the provider as mock")
        if "messagebird" in self.sms_providers and not self.messagebird_signing_key:
            found.append(
                "no MESSAGEBIRD_SIGNING_KEY: what becomes of an SMS there is not asked for, as nobody could check it"
            )
        for provider in self.sms_providers:
            variable = f"{provider}_api_base_url"
            if crosses_a_network_in_the_clear(getattr(self, variable, "")):
                found.append(f"{variable.upper()} is http: the login and every text cross the network unencrypted")
        return found


def crosses_a_network_in_the_clear(url: str) -> bool:
    """Tell whether a URL is one without TLS that leads off this machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}
