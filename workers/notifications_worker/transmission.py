"""One message over the routes of its channel: circuit, rate limit, claim, send, record.

The next route is tried only when it is known that nobody got the message over the last one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from notifications_worker.channel import Circuit, NotAccepted
from notifications_worker.ledger import UNAVAILABLE, Attempt, Closed, until_written
from notifications_worker.results import done, not_sent
from worker_runtime.breaker import CircuitOpen
from worker_runtime.delivery_state import AlreadySent, Doubtful, InProgress
from worker_runtime.outcome import DeadLetter, Defer, Hold, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from notifications_worker.channel import Accepted, AnyChannel, AnyRoute, Verdict
    from notifications_worker.ledger import Ledger, Sending
    from notifications_worker.limits import Limits
    from notifications_worker.notification import Notification
    from notifications_worker.suppression import Suppressions
    from worker_runtime.breaker import Breaker, Call
    from worker_runtime.clock import Clock
    from worker_runtime.metrics import DeliveryMetrics
    from worker_runtime.outcome import Outcome

__all__ = ["OUTCOMES", "Parcel", "Transmission"]

log = structlog.get_logger()

# The values of the delivery metric's `outcome` label: one for each end of a call to a provider.
OUTCOMES = ("accepted", "retried", "deferred", "rejected", "unknown", "pretended")
IN_PROGRESS_PAUSE_SECONDS = 5.0
# Jobs that met an outage come back one after another rather than all at once.
SPREAD_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """A composed message and what it was made from."""

    notification: Notification
    sending: Sending
    message: Any


@dataclass(frozen=True, slots=True)
class _End:
    """How one route ended: whether its circuit was closed for us, and whether another may be tried."""

    outcome: Outcome
    passed: bool = True
    another_may: bool = False


class _NotTried(Exception):
    """The provider was not asked to send: the circuit learns nothing."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Transmission:
    """Sends the messages of one channel."""

    def __init__(
        self,
        channel: AnyChannel,
        breaker: Callable[[AnyRoute], Breaker],
        ledger: Ledger,
        suppressions: Suppressions,
        limits: Limits,
        metrics: DeliveryMetrics,
        clock: Clock,
        random: Random,
    ) -> None:
        self._channel = channel
        self._breaker = breaker
        self._ledger = ledger
        self._suppressions = suppressions
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._random = random
        for provider in channel.providers:
            metrics.announce(channel.name, provider, OUTCOMES)

    async def __call__(self, parcel: Parcel) -> Outcome:
        """Send it, or say why not now. Raises one of `ledger.UNAVAILABLE` as long as nothing was sent."""
        routes, ends = self._channel.routes(parcel.message), list[_End]()
        for route in routes:
            end = await self._over(route, parcel, [end.outcome for end in ends if not end.passed])
            ends.append(end)
            if not end.another_may:
                return end.outcome
        return await self._until_one_may(routes, ends)

    async def _over(self, route: AnyRoute, parcel: Parcel, closed: Sequence[Outcome]) -> _End:
        try:
            async with self._breaker(route).guard() as call:
                await self._must_not_be_behind(closed, parcel)
                await self._must_be_due(route, parcel)
                found = await self._claimed(route, parcel)
                return await self._send(route, parcel, call, found)
        except CircuitOpen as circuit:
            reason = f"the circuit of {circuit.dependency} is open"
            wait = Hold if route.shared else Defer
            return _End(wait("CIRCUIT_OPEN", reason, circuit.seconds), passed=False, another_may=True)
        except _NotTried as told:
            return _End(told.outcome)
        except NotAccepted as untold:
            return _End(untold.verdict.outcome)

    async def _must_not_be_behind(self, closed: Sequence[Outcome], parcel: Parcel) -> None:
        """Have a provider that may have the message asked for it first, however long its circuit stays open."""
        waits = [end.seconds for end in closed if isinstance(end, (Hold, Defer))]
        if waits and isinstance(await self._ledger.look(parcel.sending), Doubtful):
            reason = "it may have been sent, and who would know cannot be asked: the circuit is open"
            seconds = min(waits) + self._random.uniform(0, SPREAD_SECONDS)
            raise _NotTried(Defer("DELIVERY_UNKNOWN", reason, seconds))

    async def _must_be_due(self, route: AnyRoute, parcel: Parcel) -> None:
        if limited := await self._limits.wait(parcel.notification, route):
            raise _NotTried(limited)

    async def _claimed(self, route: AnyRoute, parcel: Parcel) -> Accepted | None:
        """Take the right to send; if somebody may have sent it before, return what the provider says of that."""
        match await self._ledger.begin(parcel.sending, route.provider):
            case AlreadySent(provider_message_id, sent_at):
                raise _NotTried(done(parcel.notification, self._clock, provider_message_id, at=sent_at))
            case InProgress(seconds):
                raise _NotTried(in_progress(seconds))
            case Doubtful(since):
                return await self._looked_up(route, parcel, since)
        return None

    async def _looked_up(self, route: AnyRoute, parcel: Parcel, since: float) -> Accepted | None:
        if route.look_up is not None and (found := await route.look_up(parcel.message, since)) is not None:
            return found
        if parcel.notification.is_bulk and not route.repeatable:
            reason = "it may have been sent, and bulk messages are not sent twice"
            attempt = self._attempt(route, self._clock.now(), 0.0, "unknown", code="DELIVERY_UNKNOWN", reason=reason)
            await self._ledger.ended(parcel.sending, attempt)
            raise _NotTried(DeadLetter("DELIVERY_UNKNOWN", reason))
        log.warning("notification_may_arrive_twice", reason="how sending it ended before is unknown")
        return None

    async def _send(self, route: AnyRoute, parcel: Parcel, call: Call, found: Accepted | None) -> _End:
        """Raise NotAccepted only for an end that says nothing about the circuit."""
        began, started = self._clock.now(), self._clock.monotonic()
        try:
            accepted = found or await route.send(parcel.message)
        except NotAccepted as refused:
            return await self._refused(route, parcel, call, refused, began, self._clock.monotonic() - started)
        seconds = self._clock.monotonic() - started
        if accepted.pretended:
            return await self._pretended(route, parcel, seconds)
        attempt = self._attempt(route, began, seconds, "accepted", accepted=accepted)
        await until_written(lambda: self._ledger.ended(parcel.sending, attempt))
        self._metrics.tried(self._channel.name, route.provider, "accepted", seconds)
        self._log_accepted(route, parcel, accepted, seconds)
        return _End(done(parcel.notification, self._clock, accepted.provider_message_id, seconds=seconds))

    async def _pretended(self, route: AnyRoute, parcel: Parcel, seconds: float) -> _End:
        self._metrics.tried(self._channel.name, route.provider, "pretended", seconds)
        why = f"nothing was sent: the provider is {route.provider}"
        await self._ledger.close(parcel.sending, Closed("dropped", "PRETENDED", why))
        return _End(not_sent(parcel.notification, self._clock, why))

    async def _refused(
        self, route: AnyRoute, parcel: Parcel, call: Call, refused: NotAccepted, began: float, seconds: float
    ) -> _End:
        verdict, label = refused.verdict, outcome_label(refused.verdict)
        code, reason = verdict.outcome.code, verdict.outcome.reason
        log.warning("notification_not_accepted", code=code, provider=route.provider, said=refused.text)
        self._metrics.tried(self._channel.name, route.provider, label, seconds)
        attempt = self._attempt(route, began, seconds, label, code=code, reason=reason, refused=refused)
        await self._note(parcel, attempt, verdict)
        match verdict.circuit:
            case Circuit.UNTOLD:
                raise refused
            case Circuit.FAILED:
                call.failed(reason)
            case Circuit.MISCONFIGURED:
                call.failed_for_good(reason)
            case Circuit.WORKS:
                pass
        return _End(verdict.outcome, another_may=verdict.unsent and verdict.circuit is not Circuit.WORKS)

    async def _note(self, parcel: Parcel, attempt: Attempt, verdict: Verdict) -> None:
        """Record a refusal. Losing that costs a warning at the next attempt, and an attempt to a bad address."""
        sending = parcel.sending
        try:
            await self._ledger.ended(sending, attempt)
            if verdict.suppress:
                await self._suppressions.add(
                    sending.delivery.tenant, self._channel.name, sending.recipient, verdict.suppress
                )
        except UNAVAILABLE as error:
            log.warning("delivery_attempt_not_recorded", error=str(error))

    async def _until_one_may(self, routes: Sequence[AnyRoute], ends: Sequence[_End]) -> Outcome:
        """Wait for the first circuit to close: these may have been the failures that opened them."""
        passed = [end.outcome for end in ends if end.passed]
        last = passed[-1] if passed else ends[-1].outcome
        if not isinstance(last, (Hold, Defer)):
            return last
        seconds = min([await self._breaker(route).open_for() for route in routes])
        if not passed:
            return replace(last, seconds=seconds)
        return replace(last, seconds=max(last.seconds, seconds) + self._random.uniform(0, SPREAD_SECONDS))

    def _attempt(
        self,
        route: AnyRoute,
        began: float,
        seconds: float,
        label: str,
        *,
        accepted: Accepted | None = None,
        refused: NotAccepted | None = None,
        code: str | None = None,
        reason: str | None = None,
    ) -> Attempt:
        return Attempt(
            provider=route.provider,
            started_at=began,
            seconds=seconds,
            outcome=label,
            unsent=refused is not None and refused.verdict.unsent,
            provider_message_id=accepted.provider_message_id if accepted else None,
            code=code,
            reason=reason,
            reply=accepted.reply if accepted else refused.reply if refused else None,
        )

    def _log_accepted(self, route: AnyRoute, parcel: Parcel, accepted: Accepted, seconds: float) -> None:
        log.info(
            "notification_accepted",
            channel=self._channel.name,
            provider=route.provider,
            # Without its domain: what looks like an address is masked in logs.
            providerMessageId=(accepted.provider_message_id or "").strip("<>").partition("@")[0],
            recipient=self._channel.shown(parcel.sending.recipient),
            milliseconds=round(seconds * 1000),
        )


def outcome_label(verdict: Verdict) -> str:
    """Return the metric's label for a refusal."""
    if not verdict.unsent:
        return "unknown"
    match verdict.outcome:
        case Defer():
            return "deferred"
        case Retry():
            return "retried"
        case DeadLetter():
            return "rejected"


def in_progress(seconds: float) -> Defer:
    """Say that another job with the same notificationId is being sent; it is looked at again soon."""
    reason = "another job with the same notificationId is being sent"
    return Defer("DELIVERY_IN_PROGRESS", reason, min(seconds, IN_PROGRESS_PAUSE_SECONDS))
