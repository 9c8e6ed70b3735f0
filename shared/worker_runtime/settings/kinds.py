"""The kinds of value a variable may hold, and what can be noted beside a field.

A variable is one line in a settings class; its name is the field's in capitals:

    class EventsSettings(WorkerSettings):
        outbox_poll_interval_ms: Annotated[Milliseconds, ShownAs("pollIntervalMs")] = Field(
            100, le=60_000, description="pause between two polls of the outbox"
        )
        health_port: HealthPort = 3100

A `SecretStr` field also reads `<NAME>_FILE`; a field without a default is required.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote_to_bytes, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Allowed:
    """What a person may write, where the type alone does not say it."""

    text: str


@dataclass(frozen=True)
class ShownAs:
    """The name under `.config` of `/health/detailed`, where it is not the field's own in camelCase."""

    name: str


@dataclass(frozen=True)
class DefaultIs:
    """A default that differs between machines, in words."""

    text: str


def comma_separated(value: Any) -> Any:
    """Split `a, b` into its parts; what is not text passes."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_HALF_AN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def url_with_scheme(*schemes: str) -> Callable[[str], str]:
    """Return a validator: an absolute URL with one of these schemes and a host. Its errors never repeat the value."""

    def check(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError("not a URL with a host and the scheme " + " or ".join(schemes))
        try:
            _ = parts.port
            unquote_to_bytes(parts.netloc).decode()
        except ValueError:
            raise ValueError("its login or port cannot be read: write special characters as %40 and the like") from None
        if _HALF_AN_ESCAPE.search(parts.netloc):
            raise ValueError("a % in it is not followed by two hexadecimal digits: write % itself as %25")
        return value

    return check


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value))


def _without_space(value: str) -> str:
    if any(character.isspace() for character in value):
        raise ValueError("holds white space")
    return value


Port = Annotated[int, Field(ge=1, le=65_535)]
HealthPort = Annotated[int, Field(ge=0, le=65_535, description="port of the health server; 0 = any free one, logged")]
Milliseconds = Annotated[int, Field(ge=1)]
Attempts = Annotated[int, Field(ge=1, le=20)]
MillisecondsList = Annotated[
    tuple[Milliseconds, ...],
    BeforeValidator(comma_separated),
    Allowed("whole numbers from 1, separated by commas"),
]
Networks = Annotated[
    tuple[Annotated[str, AfterValidator(_network)], ...],
    BeforeValidator(comma_separated),
    Allowed("networks like 10.0.0.0/8, separated by commas"),
]
WebAddress = Annotated[str, AfterValidator(url_with_scheme("http", "https")), Allowed("an http or https URL")]
KeyPart = Annotated[str, Field(min_length=1), AfterValidator(_without_space), Allowed("text without white space")]
