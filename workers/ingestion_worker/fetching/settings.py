"""Where documents may come from, and how large they may be."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  pydantic reads annotations
from typing import Annotated

from pydantic import AfterValidator, Field

from worker_runtime.settings import WorkerSettings
from worker_runtime.settings.kinds import Allowed, Milliseconds
from worker_runtime.storage import storage_location

__all__ = ["FetchingSettings"]

MEBIBYTE = 1_048_576
MOST_PORT = 65_535


def scanner_address(value: str) -> str:
    """Check an address of ClamAV's daemon. Raises ValueError, which does not repeat it."""
    if value.startswith("/"):
        return value
    host, separator, port = value.rpartition(":")
    if not separator or not host or "/" in value or not (port.isascii() and port.isdigit()):
        raise ValueError("neither host:port, such as clamav:3310, nor the absolute path of a socket")
    if not 1 <= int(port) <= MOST_PORT:
        raise ValueError(f"its port is not one from 1 to {MOST_PORT}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("an IPv6 address is written in brackets, such as [::1]:3310")
    return value


class FetchingSettings(WorkerSettings):
    """Documents' sources."""

    storage_url: Annotated[
        str,
        AfterValidator(storage_location),
        Allowed("a folder, or a URL like s3://bucket/prefix, gs://... or az://..."),
    ] = Field(
        ".data/objects", description="object store that documents come from, and results go to without a database"
    )
    documents_root: Annotated[Path, Allowed("a folder")] | None = Field(
        None, description="folder that `file:` URLs may point into; without it they are refused"
    )
    document_max_bytes: int = Field(100 * MEBIBYTE, ge=1, description="most bytes of a document")
    fetch_timeout_ms: Annotated[Milliseconds, Field(le=3_600_000)] = Field(
        120_000, description="time limit of fetching a document, from the look-up of its host to its last byte"
    )
    clamav_address: (
        Annotated[str, AfterValidator(scanner_address), Allowed("host:port, or a path of a socket")] | None
    ) = Field(None, description="ClamAV's daemon, which every document must pass; without it none is scanned")
    clamav_timeout_ms: Annotated[Milliseconds, Field(le=3_600_000)] = Field(
        120_000, description="time limit of scanning a document"
    )
