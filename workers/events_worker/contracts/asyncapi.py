"""The catalogue as an AsyncAPI 3 document, for tools that draw, generate or validate from one."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from events_worker.cloudevents import dataschema
from events_worker.event import EventJob

if TYPE_CHECKING:
    from events_worker.contracts.catalogue import Catalogue, Contract, Release

HEAD = "# Generated from contracts-v1.yaml by docs/reference/generate.py; do not edit.\n"
CHANNEL = "intelliflow:events"
INFO = {
    "title": "IntelliFlow domain events",
    "version": "1.0.0",
    "description": (
        "What happened in the CRM, as the events-worker takes it from the outbox table domain_event_outbox, publishes "
        "it and hands it to handlers. How to commit an event: docs/how-to/produce.md."
    ),
}
ADDRESS = (
    "A BullMQ queue in Redis with the prefix `intelliflow` (QUEUE_PREFIX) and the name `events`. A job's name is the "
    "type of its event and its id is the event's id."
)
EVENTS = {"$ref": "#/channels/events"}

Object = dict[str, Any]


def asyncapi_yaml(catalogue: Catalogue) -> str:
    """Return the document as YAML."""
    return HEAD + yaml.dump(asyncapi(catalogue), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


def asyncapi(catalogue: Catalogue) -> Object:
    """Return the document."""
    versions = _versions(catalogue)
    return {
        "asyncapi": "3.0.0",
        "info": INFO,
        "defaultContentType": "application/json",
        "channels": {"events": _channel(versions)},
        "operations": _operations(versions),
        "components": {
            "messages": {version.key: _message(version) for version in versions},
            "schemas": _schemas(versions),
        },
    }


class _Version(NamedTuple):
    """One version of one event; `key` is the event's type and, behind it, the number of an older version."""

    key: str
    event_type: str
    contract: Contract
    release: Release

    @property
    def family(self) -> str:
        return self.event_type.partition(".")[0]


def _versions(catalogue: Catalogue) -> list[_Version]:
    """Return every version of every event, the newest first."""
    return [
        _Version(f"{event_type}-{release.version}" if index else event_type, event_type, contract, release)
        for event_type, contract in catalogue.events.items()
        for index, release in enumerate(reversed(contract.releases()))
    ]


def _channel(versions: list[_Version]) -> Object:
    messages = {version.key: {"$ref": f"#/components/messages/{version.key}"} for version in versions}
    return {"address": CHANNEL, "description": ADDRESS, "messages": messages}


def _operations(versions: list[_Version]) -> Object:
    families = groupby(versions, key=lambda version: version.family)
    handled = {f"handle{family.capitalize()}Events": _handling(family, list(group)) for family, group in families}
    published = {"action": "send", "channel": EVENTS, "summary": "The relay publishes what the outbox holds."}
    return {"publishEvents": published, **handled}


def _handling(family: str, versions: list[_Version]) -> Object:
    return {
        "action": "receive",
        "channel": EVENTS,
        "summary": f"Rules and handlers get what happened to every {family}.",
        "messages": [{"$ref": f"#/channels/events/messages/{version.key}"} for version in versions],
    }


def _message(version: _Version) -> Object:
    contract = version.contract
    own = {"eventType": {"const": version.event_type}, "payload": {"$ref": f"#/components/schemas/{version.key}"}}
    return {
        "name": version.event_type,
        "title": f"{version.event_type} {version.release.version}",
        "summary": contract.description,
        "tags": [{"name": version.family}],
        "payload": {"allOf": [{"$ref": "#/components/schemas/Event"}, {"type": "object", "properties": own}]},
        "x-idempotency-key": contract.idempotency_key,
        "x-on-dead-letter": contract.on_dead_letter,
        "x-dataschema": dataschema(version.event_type, str(version.release.version)),
    }


def _schemas(versions: list[_Version]) -> Object:
    envelope = _untitled(EventJob.model_json_schema(ref_template="#/components/schemas/{model}"))
    shared = envelope.pop("$defs")
    return {"Event": envelope, **shared, **{version.key: version.release.schema for version in versions}}


def _untitled(schema: Any) -> Any:
    """Leave out the titles that pydantic makes of names; they say nothing and hurt the eye."""
    if isinstance(schema, list):
        return [_untitled(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _untitled(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}


class _Plain(yaml.SafeDumper):
    """Without anchors: every schema can be read where it stands."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True
