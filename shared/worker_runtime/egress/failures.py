"""What went wrong with a request, told by what the sender may do next."""

from __future__ import annotations

import socket
import ssl
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from worker_runtime.egress.addresses import EgressRefused, refusal

if TYPE_CHECKING:
    from worker_runtime.egress.addresses import Target

__all__ = ["FAILURES", "NoAnswer", "NotReached", "Trip", "failure", "too_late", "under_way"]

UNKNOWN_HOST = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
# What aiohttp, or under uvloop a socket, raises when an exchange fails.
FAILURES = (aiohttp.ClientError, OSError, RuntimeError)


class NotReached(Exception):
    """Nothing was sent, and that may change: no connection, no TLS, or not in time (`timed_out`)."""

    def __init__(self, sentence: str, *, timed_out: bool = False) -> None:
        super().__init__(sentence)
        self.timed_out = timed_out


class NoAnswer(Exception):
    """The request was sent, perhaps in part, and what became of it is unknown."""

    def __init__(self, sentence: str, *, timed_out: bool = False) -> None:
        super().__init__(sentence)
        self.timed_out = timed_out


@dataclass(slots=True)
class Trip:
    """What is known of a request under way, in case it fails."""

    admitted: bool = False
    turned_away: bool = False
    connected: bool = False
    reused: bool = False


under_way: ContextVar[Trip] = ContextVar("under_way")


def too_late(target: Target, trip: Trip, seconds: float) -> NotReached | NoAnswer:
    """Say what it means that a request took longer than it may."""
    host = target.url.host
    if trip.connected:
        return NoAnswer(f"{host} did not answer within {seconds:g} s", timed_out=True)
    return NotReached(f"no connection to {host} within {seconds:g} s", timed_out=True)


def failure(target: Target, trip: Trip, error: Exception) -> EgressRefused | NotReached | NoAnswer:
    """Say what an error, one of `FAILURES`, means."""
    if not trip.connected:
        return _not_connected(target, trip, error)
    if isinstance(error, aiohttp.ClientResponseError):
        return NoAnswer(f"{target.url.host} answered something that is not HTTP")
    return NoAnswer(f"{target.url.host} closed the connection before it answered")


def _not_connected(target: Target, trip: Trip, error: Exception) -> EgressRefused | NotReached:
    host = target.url.host
    if trip.turned_away and not trip.admitted:
        return EgressRefused(refusal(target))
    match error:
        case aiohttp.ClientConnectorDNSError():
            return _without_address(host, error)
        case aiohttp.InvalidURL():
            return EgressRefused("the URL cannot be requested: its host is no name and no address")
        case aiohttp.ClientConnectorCertificateError():
            return NotReached(f"{host} showed a certificate that is not trusted for its name")
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return NotReached(f"{host} does not speak TLS as it should")
        case _:
            return NotReached(f"{host} could not be connected to")


def _without_address(host: str | None, error: aiohttp.ClientConnectorDNSError) -> EgressRefused | NotReached:
    if error.os_error.errno in UNKNOWN_HOST:
        return EgressRefused(f"there is no host {host}")
    return NotReached(f"the address of {host} could not be found out for now")
