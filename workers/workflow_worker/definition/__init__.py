"""Workflows that are written down instead of programmed: read, checked, and run over a `WorkflowContext`."""

from workflow_worker.definition.definition import Definition, Trigger
from workflow_worker.definition.json_schema import schema
from workflow_worker.definition.problems import DefinitionError
from workflow_worker.definition.reading import Surroundings, load_definition, read_definition

__all__ = [
    "Definition",
    "DefinitionError",
    "Surroundings",
    "Trigger",
    "load_definition",
    "read_definition",
    "schema",
]
