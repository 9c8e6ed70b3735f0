"""The queues this product has, and the variables each of them has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from worker_runtime.settings.kinds import Allowed, Attempts, KeyPart, Milliseconds, MillisecondsList

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEDULE_START_MS = (1_000, 5_000, 30_000)
SCHEDULE_FACTOR = 5
LONGEST_DELAY_MS = 86_400_000
MOST_DELAYS = 19


def _no_colon(value: str) -> str:
    if ":" in value:
        raise ValueError("holds a colon (put it in the prefix)")
    return value


def one_schedule() -> tuple[int, ...]:
    """Return the delays in ms before attempts 2, 3, 4...: 1 s, 5 s, 30 s, then five times the last, at most a day."""
    delays = list(SCHEDULE_START_MS)
    while len(delays) < MOST_DELAYS:
        delays.append(min(delays[-1] * SCHEDULE_FACTOR, LONGEST_DELAY_MS))
    return tuple(delays)


class QueueOptions(BaseModel):
    """What can be set for one queue. `{queue}` in a variable's template is one of `QUEUES`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: KeyPart | None = Field(None, description="the queue's whole BullMQ prefix, for producers with another")
    name: Annotated[KeyPart, AfterValidator(_no_colon), Allowed("text without white space or colon")] | None = Field(
        None, description="the queue's BullMQ name, for producers with another"
    )
    rate_limit_max: int = Field(0, ge=0, description="jobs started per duration, over all replicas; 0 = no limit")
    rate_limit_duration_ms: Milliseconds = Field(1_000, description="the duration of the rate limit")
    attempts: Attempts = Field(3, description="attempts in all before a job becomes a dead letter")
    delays_ms: MillisecondsList | None = Field(
        None,
        min_length=1,
        description="delays before attempts 2, 3, ...; the last repeats. Default: 1000,5000,30000, x5",
    )


class KnownQueue(BaseModel):
    """Where a queue is by default, and what it has instead of the general defaults.

    `addressee` is the field of a notification's `recipient` that the channel of this queue needs.
    """

    model_config = ConfigDict(frozen=True)

    under: str = ""
    name: str
    defaults: dict[str, Any] = {}
    addressee: str | None = None


def channel(name: str, addressee: str, **defaults: Any) -> KnownQueue:
    """Return the queue of a notification channel."""
    return KnownQueue(under=":notifications", name=name, addressee=addressee, defaults=defaults)


# A line in the second group makes `notifications_worker/channels/<name>.py` a channel, for rules too.
QUEUES = {
    "EVENTS": KnownQueue(name="events"),
    "EMAIL": channel("email", "email", rate_limit_max=10, attempts=5),
    "SMS": channel("sms", "phone"),
    "WEBHOOK": channel("webhook", "webhookUrl", rate_limit_max=100, attempts=5),
    "SLACK": channel("slack", "id"),
    "TEXT_EXTRACTION": KnownQueue(name="text-extraction"),
    "OCR_PROCESSING": KnownQueue(name="ocr-processing", defaults={"attempts": 2}),
    "EMBEDDING_GENERATION": KnownQueue(name="embedding-generation"),
}
# The channels of notifications, and what each needs of a recipient.
ADDRESSEES = {key: queue.addressee for key, queue in QUEUES.items() if queue.addressee}
if TYPE_CHECKING:
    ChannelName = str
else:
    ChannelName = Literal[tuple(ADDRESSEES)]


def known_queues(own: Iterable[str]) -> dict[str, KnownQueue]:
    """Return the product's queues and a worker's `own`: `SHOUTS_AT_NIGHT` is `<QUEUE_PREFIX>:shouts-at-night`."""
    return {key: KnownQueue(name=key.lower().replace("_", "-")) for key in own} | QUEUES


VARIABLE_OF = {
    "prefix": "QUEUE_{queue}_PREFIX",
    "name": "QUEUE_{queue}_NAME",
    "rate_limit_max": "QUEUE_RATE_LIMIT_{queue}_MAX",
    "rate_limit_duration_ms": "QUEUE_RATE_LIMIT_{queue}_DURATION_MS",
    "attempts": "RETRY_{queue}_ATTEMPTS",
    "delays_ms": "RETRY_{queue}_DELAYS_MS",
}


class Queues(BaseModel):
    """The options of every queue; a field is a queue's key in small letters. What is more is a worker's own."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, QueueOptions]

    @model_validator(mode="before")
    @classmethod
    def _with_all(cls, said: dict[str, Any]) -> dict[str, Any]:
        return {key.lower(): QueueOptions(**queue.defaults) for key, queue in QUEUES.items()} | said

    def of(self, queue: str) -> QueueOptions:
        """Return the options of the queue with that key (`EVENTS`); the defaults where nothing is said of it."""
        return self.__pydantic_extra__.get(queue.lower()) or QueueOptions()
