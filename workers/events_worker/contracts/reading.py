"""The compiled catalogue: built once at the start, asked for every event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from events_worker.contracts.acceptance import acceptance
from events_worker.contracts.catalogue import SHIPPED, load_catalogue, release_for
from events_worker.contracts.lifting import lifted
from events_worker.contracts.versions import parsed
from worker_runtime.schema_sentences import problems

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from events_worker.contracts.catalogue import Catalogue, Contract, Release, Schema
    from events_worker.contracts.versions import Version

INVALID_PAYLOAD = "INVALID_PAYLOAD"
UNKNOWN_VERSION = "UNKNOWN_VERSION"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A payload that keeps its contract, as handlers know it: of `version`, which is the event's own unless lifted."""

    version: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Violation:
    """Why an event cannot be read: a stable upper-case code and a sentence without any of its values."""

    code: str
    sentence: str


class Contracts:
    """Says of any event whether it keeps its contract."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._readers = {event_type: _Reader(contract) for event_type, contract in catalogue.events.items()}
        self._blocking = {name for name, contract in catalogue.events.items() if contract.on_dead_letter == "block"}

    @property
    def types(self) -> Collection[str]:
        """The event types that have a contract."""
        return self._readers.keys()

    def knows(self, event_type: str) -> bool:
        """Tell whether this type has a contract; one without is accepted as it is."""
        return event_type in self._readers

    def blocks(self, event_type: str) -> bool:
        """Tell whether a dead letter of this type makes the later events of its aggregate wait for a person."""
        return event_type in self._blocking

    def read(self, event_type: str, version: str, payload: dict[str, Any]) -> Accepted | Violation:
        """Judge a payload of the version in `metadata.version`, and lift it to the newest if it is older.

        The given payload is not changed. Does not raise and does not block.
        """
        reader = self._readers.get(event_type)
        return reader.read(version, payload) if reader else Accepted(version, payload)


class _Reader:
    """Reads the payloads of one event type."""

    def __init__(self, contract: Contract) -> None:
        self._releases = contract.releases()
        self._newest = self._releases[-1]
        self._judges = {release.version: _judge(release.schema) for release in self._releases}

    def read(self, text: str, payload: dict[str, Any]) -> Accepted | Violation:
        """See `Contracts.read`."""
        version = parsed(text)
        release = release_for(self._releases, version) if version else None
        if release is None:
            return Violation(UNKNOWN_VERSION, self._stranger(version))
        if sentence := self._judges[release.version](payload):
            return Violation(INVALID_PAYLOAD, sentence)
        return Accepted(text, payload) if release is self._newest else self._lifted(release, payload)

    def _lifted(self, release: Release, payload: dict[str, Any]) -> Accepted | Violation:
        for older in self._releases[self._releases.index(release) : -1]:
            payload = lifted(payload, older.lift)
        newest = self._newest.version
        if sentence := self._judges[newest](payload):
            return Violation(INVALID_PAYLOAD, f"lifted from {release.version} to {newest}, {sentence}")
        return Accepted(str(newest), payload)

    def _stranger(self, version: Version | None) -> str:
        if version is None:
            return "metadata.version is not written like 1.0"
        if version > self._newest.version:
            newest = self._newest.version
            return f"{version} is newer than {newest}, the newest known here: deploy what knows it, then retry"
        known = ", ".join(str(release.version) for release in self._releases)
        return f"{version} is not among the versions that are read: {known}"


def _judge(schema: Schema) -> Callable[[Any], str | None]:
    surely_valid = acceptance(schema)
    validator = Draft202012Validator(schema)
    return lambda payload: None if surely_valid(payload) else problems(validator, payload)


def load_contracts(path: Path = SHIPPED) -> Contracts:
    """Read, check and compile a catalogue; raises `SourceError` with every mistake and its line."""
    return Contracts(load_catalogue(path))
