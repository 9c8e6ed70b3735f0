"""Variables of features that later versions bring.

They are part of the operator's contract already: a value that would be wrong then is refused now, and setting one earns
a warning that it has no effect yet.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings

from worker_runtime.settings.groups import DatabaseUrl  # noqa: TC001  pydantic reads annotations
from worker_runtime.settings.kinds import NoEffectYet


class LaterVariables(BaseSettings):
    """Features of later versions."""

    job_queue_database_url: Annotated[DatabaseUrl | None, NoEffectYet("the jobs-worker")] = Field(
        None, description="PostgreSQL database of the jobs-worker"
    )
    job_queue_enabled: Annotated[bool, NoEffectYet("the jobs-worker")] = Field(
        default=True,
        description="run the jobs-worker's tasks",
    )
