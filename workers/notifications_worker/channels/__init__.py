"""The channels this worker delivers through: of each queue of notifications, the module here with its name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from worker_runtime.settings.queues import ADDRESSEES

if TYPE_CHECKING:
    from notifications_worker.channel import ChannelKind

__all__ = ["CHANNELS"]

# By the key of the queue it serves, as in QUEUE_<QUEUE>_PREFIX; `ENABLE_<QUEUE>` switches it.
CHANNELS: dict[str, ChannelKind[Any]] = {key: import_module(f"{__name__}.{key.lower()}").KIND for key in ADDRESSEES}
