"""A company that sends SMS, on the loopback interface: Twilio's REST API and MessageBird's, as far as we use them.

It accepts every message and keeps it, unless it is told to do something else or a number is one of Twilio's magic ones:

    with SmsServer() as company:
        company.will(Answer(429, 20429, headers={"Retry-After": "7"}), ACCEPT_AND_HANG)   # the next two messages
        company.always(HANG)
        ...
        company.report(company.messages[0].sid, "delivered")     # calls back as Twilio does, signed
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp import web

from embedded_stack.sms_wire import (
    Action,
    Answer,
    ReceivedSms,
    as_messagebird,
    as_twilio,
    asked_of_messagebird,
    asked_of_twilio,
    magic_refusal,
    messagebird_error,
    signed,
    twilio_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler

__all__ = [
    "ACCEPT_AND_CLOSE",
    "ACCEPT_AND_FAIL",
    "ACCEPT_AND_HANG",
    "CLOSE",
    "HANG",
    "MUMBLE",
    "Action",
    "Answer",
    "ReceivedSms",
    "SmsServer",
    "signed",
]

HOST = "127.0.0.1"
CALL_BACK_SECONDS = 10.0
TWILIO = "/2010-04-01/Accounts/{account}/Messages.json"
MESSAGEBIRD = "/messages"
HANG = Action.HANG
CLOSE = Action.CLOSE
ACCEPT_AND_HANG = Action.ACCEPT_AND_HANG
ACCEPT_AND_CLOSE = Action.ACCEPT_AND_CLOSE
ACCEPT_AND_FAIL = Action.ACCEPT_AND_FAIL
MUMBLE = Action.MUMBLE
_ACCEPTING = (ACCEPT_AND_HANG, ACCEPT_AND_CLOSE, ACCEPT_AND_FAIL)

Step = Answer | Action


class SmsServer:
    """Listens in a thread of its own, for synchronous and asynchronous callers alike. `url` is its base address."""

    def __init__(
        self,
        *,
        account_sid: str = "AC" + "0" * 32,
        auth_token: str = "token-of-the-account",  # noqa: S107  nobody else's
        access_key: str = "key-of-the-account",
        port: int = 0,
    ) -> None:
        self.account_sid = account_sid
        self.auth_token = auth_token
        self.access_key = access_key
        self.port = port
        self.requests = 0
        self._script: deque[Step] = deque()
        self._always: Step | None = None
        self._kept: dict[str, ReceivedSms] = {}
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What TWILIO_API_BASE_URL or MESSAGEBIRD_API_BASE_URL should be."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Listen; raises OSError when the port is taken. May be called again after `stop`: what was kept stays."""
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._listening: Future[int] = Future()
        self._thread = threading.Thread(target=self._serve_until_stopped, name="sms server", daemon=True)
        self._thread.start()
        self.port = self._listening.result()

    def stop(self) -> None:
        """Stop listening and drop the connections."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def will(self, *steps: Step) -> None:
        """Do this with the next requests to send, one after another, before accepting again."""
        self._script.extend(steps)

    def always(self, step: Step | None) -> None:
        """Do this with every request to send that no `will` speaks of; None: accept."""
        self._always = step

    @property
    def messages(self) -> list[ReceivedSms]:
        """Everything taken so far, in order of arrival."""
        with self._changed:
            return list(self._kept.values())

    def forget(self) -> None:
        """Be as new."""
        with self._changed:
            self._kept.clear()

    def wait_until(self, enough: Callable[[Self], bool], *, seconds: float = 10.0) -> bool:
        """Block until `enough` says yes, asked at each request; false when `seconds` passed before."""
        with self._changed:
            return self._changed.wait_for(lambda: enough(self), seconds)

    async def arrived(self, count: int, *, seconds: float = 10.0) -> list[ReceivedSms]:
        """Wait until `count` messages are here and return them. Raises TimeoutError."""
        if not await asyncio.to_thread(self.wait_until, lambda me: len(me.messages) >= count, seconds=seconds):
            raise TimeoutError(f"{len(self.messages)} of {count} messages arrived within {seconds} s")
        return self.messages

    def report(self, sid: str, status: str, *, error_code: int | None = None) -> int:
        """Tell whoever asked what became of a message, as Twilio does; returns the HTTP status of their answer."""
        kept = self._kept[sid] = replace(self._kept[sid], status=status)
        told = {"MessageSid": sid, "MessageStatus": status, "To": kept.to, "From": kept.sender}
        return self.call_back(kept.status_url, told | ({"ErrorCode": str(error_code)} if error_code else {}))

    def call_back(self, url: str, parameters: dict[str, str], *, shared_key: str = "") -> int:
        """Post a signed form; with `shared_key` as Twilio signs for those who use one. Returns the HTTP status."""
        headers = signed(url, parameters, shared_key or self.auth_token, shared=bool(shared_key))
        posting = asyncio.run_coroutine_threadsafe(_post(url, parameters, headers), self._loop)
        return posting.result(CALL_BACK_SECONDS)

    def _serve_until_stopped(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        application = web.Application(middlewares=[self._counted])
        application.router.add_post(TWILIO, self._twilio_send)
        application.router.add_get(TWILIO, self._twilio_list)
        application.router.add_post(MESSAGEBIRD, self._messagebird_send)
        application.router.add_get(MESSAGEBIRD, self._messagebird_list)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self.port, reuse_address=True).start()
        except OSError as error:
            self._listening.set_exception(error)
            return
        self._listening.set_result(runner.addresses[0][1])
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        with self._changed:
            self.requests += 1
            self._changed.notify_all()
        return await handler(request)

    async def _twilio_send(self, request: web.Request) -> web.StreamResponse:
        if not self._is_twilio_login(request):
            return twilio_error(Answer(401, 20003, "Authenticate"))
        asked = asked_of_twilio(await request.post())
        return await self._follow(request, magic_refusal(asked) or self._next_step(), asked, twilio_error, as_twilio)

    async def _twilio_list(self, request: web.Request) -> web.StreamResponse:
        if not self._is_twilio_login(request):
            return twilio_error(Answer(401, 20003, "Authenticate"))
        query = request.query
        found = [
            as_twilio(one)
            for one in reversed(self.messages)
            if query.get("To", one.to) == one.to and query.get("From", one.sender) == one.sender
        ]
        return web.json_response({"messages": found[: int(query.get("PageSize", 50))], "next_page_uri": None})

    def _is_twilio_login(self, request: web.Request) -> bool:
        login = base64.b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        offered = request.headers.get("Authorization", "")
        return request.match_info["account"] == self.account_sid and hmac.compare_digest(offered, f"Basic {login}")

    async def _messagebird_send(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"AccessKey {self.access_key}":
            return messagebird_error(Answer(401, 2, "Request not allowed (incorrect access_key)"))
        asked = asked_of_messagebird(await request.json())
        return await self._follow(request, self._next_step(), asked, messagebird_error, as_messagebird)

    async def _messagebird_list(self, request: web.Request) -> web.StreamResponse:
        wanted = "+" + request.query["recipient"]
        return web.json_response(
            {"items": [as_messagebird(one) for one in reversed(self.messages) if one.to == wanted]}
        )

    def _next_step(self) -> Step | None:
        return self._script.popleft() if self._script else self._always

    async def _follow(
        self,
        request: web.Request,
        step: Step | None,
        asked: ReceivedSms,
        error: Callable[[Answer], web.Response],
        written: Callable[[ReceivedSms], dict[str, Any]],
    ) -> web.StreamResponse:
        if step is None or step in _ACCEPTING:
            with self._changed:
                self._kept[asked.sid] = asked
                self._changed.notify_all()
        if isinstance(step, Answer):
            return error(step)
        if step is None:
            return web.json_response(written(asked), status=201)
        return await self._misbehave(request, step, error)

    async def _misbehave(
        self, request: web.Request, action: Action, error: Callable[[Answer], web.Response]
    ) -> web.StreamResponse:
        if action is MUMBLE:
            return web.Response(text="<html>Welcome to our hotel</html>", content_type="text/html")
        if action is ACCEPT_AND_FAIL:
            return error(Answer(500, words="Internal Server Error"))
        if action in {HANG, ACCEPT_AND_HANG}:
            await self._stop.wait()
        if request.transport:
            request.transport.abort()
        return web.Response()


async def _post(url: str, parameters: dict[str, str], headers: dict[str, str]) -> int:
    async with aiohttp.ClientSession() as session, session.post(url, data=parameters, headers=headers) as reply:
        return reply.status
