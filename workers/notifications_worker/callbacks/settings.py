"""What the server for provider callbacks reads."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from worker_runtime.settings import Port, WorkerSettings
from worker_runtime.settings.kinds import WebAddress  # noqa: TC001  pydantic reads annotations

__all__ = ["CallbackSettings"]


class CallbackSettings(WorkerSettings):
    """Provider callbacks."""

    callback_host: str = Field("127.0.0.1", min_length=1, description="address the callback server listens on")
    callback_port: Port | None = Field(
        None, description="port for provider callbacks and unsubscribe links; without it nothing listens"
    )
    public_base_url: WebAddress | None = Field(
        None,
        description="how the outside reaches `CALLBACK_PORT`: what providers are told to call, and sign, and where"
        " links for unsubscribing lead",
    )

    @model_validator(mode="after")
    def _callbacks_have_an_address(self) -> Self:
        if self.callback_port and not self.public_base_url:
            raise ValueError(
                "CALLBACK_PORT is set and PUBLIC_BASE_URL is not, without which no signature can be checked;"
                " allowed: both or neither"
            )
        return self

    def callback_url(self, path: str) -> str | None:
        """Return the public address of a path like `/callbacks/...`; None when nothing listens for it."""
        if not (self.callback_port and self.public_base_url):
            return None
        return self.public_base_url.rstrip("/") + path
