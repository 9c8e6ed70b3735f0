"""The JSON Schema of a definition, for editors: what it knows of keys, it knows from the models that read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from workflow_worker.definition.reading import MOST_STEPS, Head, RetryFields, StepHead, TriggerFields
from workflow_worker.steps import STEPS
from workflow_worker.steps.step import STEP_REFERENCE

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["schema"]

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> str:
    """Return the schema as it is published."""
    definitions: dict[str, Any] = {"step": _step()}
    head = _model(Head, definitions)
    definitions |= {name: _model(kind, definitions) for name, kind in STEPS.items()}
    definitions |= {"retry": _model(RetryFields, definitions), "trigger": _model(TriggerFields, definitions)}
    steps = {"type": "array", "items": {"$ref": "#/$defs/step"}, "maxItems": MOST_STEPS}
    document = {
        "$schema": DRAFT,
        "title": "Workflow definition",
        "description": "What runs when an event comes or somebody starts it: see docs/how-to/write-a-workflow.md.",
        "type": "object",
        "properties": {**head["properties"], "trigger": {"$ref": "#/$defs/trigger"}, "steps": steps},
        "required": ["name"],
        "additionalProperties": False,
        "oneOf": [{"required": ["steps"]}, {"required": ["workflow"]}],
        "$defs": dict(sorted(definitions.items())),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _step() -> dict[str, Any]:
    head = StepHead.model_json_schema()["properties"]
    kinds = {name: {"$ref": f"#/$defs/{name}"} for name in STEPS}
    return {
        "type": "object",
        "properties": {**head, "retry": {"$ref": "#/$defs/retry"}, **kinds},
        "required": ["id"],
        "additionalProperties": False,
        "oneOf": [{"required": [name]} for name in STEPS],
    }


def _model(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a model's schema; what it refers to goes to the definitions."""
    text = json.dumps(model.model_json_schema(by_alias=True)).replace(STEP_REFERENCE, "#/$defs/step")
    written: dict[str, Any] = json.loads(text)
    definitions |= written.pop("$defs", {})
    written.pop("title", None)
    return written
