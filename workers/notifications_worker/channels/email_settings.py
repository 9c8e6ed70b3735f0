"""What the e-mail channel reads."""

from __future__ import annotations

import ipaddress
import re
import ssl
from email.headerregistry import Address
from pathlib import Path  # noqa: TC003  pydantic reads annotations
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import email_validator
from pydantic import AfterValidator, Field, SecretStr, model_validator

from notifications_worker.callbacks.settings import CallbackSettings
from notifications_worker.channels.dkim import DkimSigner, read_private_key
from notifications_worker.templates import SHIPPED, Templates, mistakes_in
from notifications_worker.unsubscribe_links import SHORTEST_SECRET, UnsubscribeLinks
from worker_runtime.settings import Allowed, Port, WorkerSettings
from worker_runtime.storage import storage_location

__all__ = ["EmailSettings", "TemplateSettings"]

IMPLICIT_TLS_PORT = 465
MEBIBYTE = 1024 * 1024
DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
SELECTOR = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*")
RECOMMENDED_RSA_BITS = 2048


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


def _domain(value: str) -> str:
    lowered = value.lower()
    if not DOMAIN.fullmatch(lowered):
        raise ValueError("not a domain")
    return lowered


def _selector(value: str) -> str:
    lowered = value.lower()
    if not SELECTOR.fullmatch(lowered):
        raise ValueError("not a selector")
    return lowered


def _private_key(value: SecretStr) -> SecretStr:
    read_private_key(value.get_secret_value())
    return value


def _secrets(value: SecretStr) -> SecretStr:
    if any(len(secret) < SHORTEST_SECRET for secret in _listed(value)):
        raise ValueError(f"shorter than {SHORTEST_SECRET} characters")
    return value


def _listed(value: SecretStr) -> list[str]:
    return [secret.strip() for secret in value.get_secret_value().split(",")]


def _folder_without_mistakes(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError("not a folder")
    if mistakes := mistakes_in(path):
        raise ValueError("; ".join(mistakes))
    return path


def is_loopback(host: str) -> bool:
    """Tell whether mail to `host` stays on this machine; a name other than localhost is not looked up."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class TemplateSettings(WorkerSettings):
    """Templates."""

    templates_dir: (
        Annotated[Path, AfterValidator(_folder_without_mistakes), Allowed("a folder of templates")] | None
    ) = Field(None, description="templates that win over the shipped ones of the same name")

    def templates(self) -> Templates:
        """Return the templates, the operator's own in front."""
        return Templates(*([self.templates_dir] if self.templates_dir else []), SHIPPED)


class EmailSettings(TemplateSettings, CallbackSettings):
    """E-mail."""

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
    smtp_pool_size: int = Field(
        5, ge=1, le=100, description="most connections to the mail server at once; one more is for URGENT"
    )
    smtp_messages_per_connection: int = Field(
        100, ge=1, le=100_000, description="messages after which a connection is replaced"
    )
    email_from: Annotated[str, AfterValidator(_sender), Allowed("an address, or Name <address>")] = Field(
        "noreply@intelliflow.com", description="sender of e-mail"
    )
    email_max_message_bytes: int = Field(
        20 * MEBIBYTE, ge=64 * 1024, description="most bytes of a mail as it is sent, attachments in base64"
    )
    email_max_attachment_bytes: int = Field(
        10 * MEBIBYTE, ge=1, description="most bytes of one attachment as it is stored"
    )
    dkim_domain: Annotated[str, AfterValidator(_domain), Allowed("a domain")] | None = Field(
        None, description="who signs mail: the domain of `EMAIL_FROM` or one above it; without it mail is not signed"
    )
    dkim_selector: Annotated[str, AfterValidator(_selector), Allowed("a name like mail2026")] | None = Field(
        None, description="the public key is published at `<selector>._domainkey.<domain>`"
    )
    dkim_private_key: Annotated[SecretStr, AfterValidator(_private_key), Allowed("a key in PEM")] | None = Field(
        None, description="signs mail: an RSA or an Ed25519 key in PEM, whose line ends may be written \\n"
    )
    unsubscribe_secret: Annotated[SecretStr, AfterValidator(_secrets), Allowed("32 or more characters")] | None = Field(
        None,
        description="seals links for unsubscribing, which mail of category marketing needs; after a comma, older"
        " secrets whose links are to work on",
    )
    storage_url: Annotated[
        str,
        AfterValidator(storage_location),
        Allowed("a folder, or a URL like s3://bucket/prefix, gs://... or az://..."),
    ] = Field(".data/objects", description="object store that attachments come from")

    @model_validator(mode="after")
    def _mail_makes_sense(self) -> Self:
        if wrong := list(self._email_contradictions()):
            raise ValueError("\n".join(wrong))
        return self

    def _email_contradictions(self) -> list[str]:
        found = []
        if self.smtp_user and not self.smtp_password:
            found.append("SMTP_USER is set and SMTP_PASSWORD is not; allowed: both or neither")
        if self.smtp_user and self.smtp_tls == "off" and not is_loopback(self.smtp_host):
            found.append("SMTP_TLS=off would send SMTP_PASSWORD in the clear; allowed: auto, implicit, starttls")
        dkim = {name: getattr(self, name) for name in ("dkim_domain", "dkim_selector", "dkim_private_key")}
        if any(dkim.values()) and (missing := [name.upper() for name, value in dkim.items() if not value]):
            found.append(f"{', '.join(missing)} not set, and DKIM needs all three; allowed: all or none")
        return found

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

    def signer(self) -> DkimSigner | None:
        """Return what signs mail, if anything does."""
        if not (self.dkim_domain and self.dkim_selector and self.dkim_private_key):
            return None
        return DkimSigner(
            self.dkim_domain, self.dkim_selector, read_private_key(self.dkim_private_key.get_secret_value())
        )

    def unsubscribe_links(self) -> UnsubscribeLinks | None:
        """Return what makes links for unsubscribing, if they lead anywhere."""
        if not (self.unsubscribe_secret and self.public_base_url):
            return None
        return UnsubscribeLinks(self.public_base_url, _listed(self.unsubscribe_secret))

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        return [
            *super().warnings(),
            *self._smtp_warnings(),
            *self._dkim_warnings(),
            *self._unsubscribe_warnings(),
        ]

    def _smtp_warnings(self) -> list[str]:
        found = []
        if self.tls == "off" and not is_loopback(self.smtp_host):
            found.append(f"SMTP_TLS=off: mail crosses the network to {self.smtp_host} unencrypted")
        if self.smtp_password and not self.smtp_user:
            found.append("SMTP_PASSWORD has no effect without SMTP_USER")
        if self.tls == "starttls" and self.smtp_port == IMPLICIT_TLS_PORT:
            found.append("SMTP_TLS=starttls on port 465, where servers expect TLS from the first byte")
        return found

    def _dkim_warnings(self) -> list[str]:
        signer, domain = self.signer(), self.sender().domain.lower()
        if signer is None:
            return []
        found = []
        if not (f".{domain}".endswith(f".{signer.domain}") or signer.domain.endswith(f".{domain}")):
            found.append(
                f"DKIM_DOMAIN={signer.domain} does not go with EMAIL_FROM at {domain}: DMARC will not count it"
            )
        bits = getattr(signer.key, "key_size", RECOMMENDED_RSA_BITS)
        if bits < RECOMMENDED_RSA_BITS:
            found.append(f"DKIM_PRIVATE_KEY has {bits} bits: receivers want {RECOMMENDED_RSA_BITS}")
        return found

    def _unsubscribe_warnings(self) -> list[str]:
        if not self.unsubscribe_secret:
            return []
        if not self.public_base_url:
            return ["UNSUBSCRIBE_SECRET has no effect without PUBLIC_BASE_URL: mail of category marketing is refused"]
        found = []
        if urlsplit(self.public_base_url).scheme != "https":
            found.append("PUBLIC_BASE_URL is not https: mail providers ignore its links for unsubscribing (RFC 8058)")
        if not self.callback_port:
            found.append("CALLBACK_PORT is not set: links for unsubscribing work only if another process answers them")
        return found
