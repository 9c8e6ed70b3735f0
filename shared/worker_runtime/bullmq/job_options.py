"""Job options as Node refuses and stores them. Source: `validateOptions` and `optsAsJSON` of Node's Job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS_OF_A_JOB = {"delay", "jobId", "lifo", "priority"}
# What a child's failure means to its parent; the short names are those Node stores.
ON_FAILURE = {
    "failParentOnFailure": "fpof",
    "continueParentOnFailure": "cpof",
    "ignoreDependencyOnFailure": "idof",
    "removeDependencyOnFailure": "rdof",
}
SHORT_NAMES = {**ON_FAILURE, "keepLogs": "kl", "deduplication": "de"}
SHORT_NAMES_OF_TELEMETRY = {"metadata": "tm", "omitContext": "omc"}


def refuse_options(options: Mapping[str, Any], data: Any) -> str | None:
    """Say why Node's rules forbid these options for that data, or return `None`."""
    if misplaced := FIELDS_OF_A_JOB & options.keys():
        return f"options {sorted(misplaced)}: these are fields of NewJob itself"
    if len(asked := [name for name in ON_FAILURE if options.get(name)]) > 1:
        return f"options {asked}: only one of these"
    if "debounce" in options:
        return "options.debounce: BullMQ calls it deduplication now"
    deduplication = options.get("deduplication")
    if deduplication is not None and not (isinstance(deduplication, dict) and deduplication.get("id")):
        return "options.deduplication: must be an object with an id"
    return refuse_jitter(options.get("backoff")) or refuse_size(options.get("sizeLimit"), data)


def refuse_jitter(backoff: Any) -> str | None:
    """Say why a back-off's jitter is none, or return `None`."""
    jitter = backoff.get("jitter") if isinstance(backoff, dict) else None
    if isinstance(jitter, (int, float)) and not 0 <= jitter <= 1:
        return f"options.backoff.jitter {jitter}: must be between 0 and 1"
    return None


def refuse_size(limit: Any, data: Any) -> str | None:
    """Say by how much data is over its own limit in bytes, or return `None`."""
    if not limit:
        return None
    written = data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    return f"{len(written)} bytes, over its own sizeLimit of {limit}" if len(written) > limit else None


def stored(options: Mapping[str, Any]) -> dict[str, Any]:
    """Write options as Node stores them."""
    written = {SHORT_NAMES.get(key, key): value for key, value in options.items() if key != "telemetry"}
    for key, value in (options.get("telemetry") or {}).items():
        written[SHORT_NAMES_OF_TELEMETRY.get(key, key)] = value
    backoff = written.get("backoff")
    if isinstance(backoff, (int, float)):
        written["backoff"] = {"type": "fixed", "delay": backoff}
    written.setdefault("attempts", 0)
    return written
