"""What the notifications-worker reads beside what every worker does."""

from __future__ import annotations

import ipaddress
import ssl
from email.headerregistry import Address
from typing import Annotated, Literal, Self

import email_validator
from pydantic import AfterValidator, Field, SecretStr, model_validator

from notifications_worker.callbacks.settings import CallbackSettings
from notifications_worker.channels.sms_settings import SmsSettings
from notifications_worker.delivery_settings import DeliverySettings
from worker_runtime.settings import Allowed, HealthPort, Port, WorkerSettings

IMPLICIT_TLS_PORT = 465


def _sender(value: str) -> str:
    try:
        email_validator.validate_email(
            value, allow_display_name=True, check_deliverability=False, globally_deliverable=False
        )
    except email_validator.EmailNotValidError as error:
        raise ValueError(f"not an address: {error}") from None
    return value


def _certificates(value: str) -> str:
    try:
        ssl.create_default_context(cafile=value)
    except OSError as error:
        raise ValueError(f"not a readable file with certificates ({type(error).__name__})") from None
    return value


def is_loopback(host: str) -> bool:
    """Tell whether mail to `host` stays on this machine; a name other than localhost is not looked up."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class NotificationsSettings(SmsSettings, CallbackSettings, DeliverySettings, WorkerSettings):
    """E-mail."""

    health_port: HealthPort = 3102
    enable_email: bool = Field(default=True, description="deliver e-mail; otherwise its queue is left alone")
    smtp_host: str = Field("localhost", min_length=1, description="mail server")
    smtp_port: Port = Field(587, description="port of the mail server")
    smtp_user: str | None = Field(None, description="login at the mail server; without it none is tried")
    smtp_password: SecretStr | None = Field(None, description="password of that login")
    smtp_tls: Literal["auto", "implicit", "starttls", "off"] = Field(
        "auto", description="auto: TLS from the first byte on port 465, STARTTLS required on any other"
    )
    smtp_ca_file: Annotated[str, AfterValidator(_certificates), Allowed("a PEM file")] | None = Field(
        None, description="certificates the mail server's is checked against, instead of the system's"
    )
    email_from: Annotated[str, AfterValidator(_sender), Allowed("an address, or Name <address>")] = Field(
        "noreply@intelliflow.com", description="sender of e-mail"
    )

    @model_validator(mode="after")
    def _login_is_whole_and_private(self) -> Self:
        if self.smtp_user and not self.smtp_password:
            raise ValueError("SMTP_USER is set and SMTP_PASSWORD is not; allowed: both or neither")
        if self.smtp_user and self.smtp_tls == "off" and not is_loopback(self.smtp_host):
            raise ValueError("SMTP_TLS=off would send SMTP_PASSWORD in the clear; allowed: auto, implicit, starttls")
        return self

    def enabled(self, queue: str) -> bool:
        """Tell whether the channel behind the queue with that key (`EMAIL`) is on."""
        return bool(getattr(self, f"enable_{queue.lower()}"))

    @property
    def tls(self) -> Literal["implicit", "starttls", "off"]:
        """How mail is encrypted on the way to the server."""
        if self.smtp_tls == "auto":
            return "implicit" if self.smtp_port == IMPLICIT_TLS_PORT else "starttls"
        return self.smtp_tls

    def sender(self) -> Address:
        """Return EMAIL_FROM in its parts."""
        parsed = email_validator.validate_email(
            self.email_from, allow_display_name=True, check_deliverability=False, globally_deliverable=False
        )
        return Address(parsed.display_name or "", addr_spec=parsed.ascii_email or parsed.normalized)

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        found = super().warnings()
        if self.database_url is None:
            found.append("no DATABASE_URL: deliveries are remembered in Redis for 7 days, and there is no history")
        if not (self.enable_email or self.enable_sms):
            found.append("ENABLE_EMAIL=false: no channel is on, so this worker delivers nothing")
        found += self.sms_warnings()
        if self.tls == "off" and not is_loopback(self.smtp_host):
            found.append(f"SMTP_TLS=off: mail crosses the network to {self.smtp_host} unencrypted")
        if self.smtp_password and not self.smtp_user:
            found.append("SMTP_PASSWORD has no effect without SMTP_USER")
        if self.tls == "starttls" and self.smtp_port == IMPLICIT_TLS_PORT:
            found.append("SMTP_TLS=starttls on port 465, where servers expect TLS from the first byte")
        return found
