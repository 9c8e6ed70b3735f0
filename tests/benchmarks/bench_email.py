"""Mails a second from a job to the mail server's 250: what pooling, pipelining, signing and templates gain and cost.

No queue and no ledger: `./dev bench notifications` has these. The server takes everything and is a process of its own;
the part "far" puts it some milliseconds away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Run as a file, its own folder is what Python searches.
sys.path.insert(0, str(Path(__file__).parents[1]))

import aiosmtplib
import uvloop
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.tables import table
from mails import notification, stationery
from notifications_worker.channels.dkim import DkimSigner
from notifications_worker.channels.email import EmailChannel
from notifications_worker.channels.smtp_pool import PoolLimits, SmtpPool
from notifications_worker.channels.smtp_session import Relay
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from notifications_worker.channels.email import Stationery

PLAIN: dict[str, Any] = {"subject": "Hello", "body": "Hello Ada,\n\n" + "a line of an ordinary mail\n" * 20}
TEMPLATE: dict[str, Any] = {"templateId": "lead-welcome", "templateData": {"firstName": "Ada", "company": "Engines"}}
ATTACHED: dict[str, Any] = PLAIN | {"attachments": [{"filename": "a.pdf", "storageKey": "megabyte"}]}
WORKERS = 10
MEGABYTE = 1_000_000
COLUMNS = {"mails/s": ("mailsPerSecond", ".0f"), "CPU us a mail": ("cpuMicroseconds", ".0f")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--mails", type=int, default=2000, help="per measurement (default 2000)")
    parser.add_argument("--repeats", type=int, default=3, help="turns, of which the median counts (default 3)")
    parser.add_argument("--far", type=float, default=20.0, help="milliseconds that each reply takes (default 20)")
    parser.add_argument("--json", action="store_true", help="one machine-readable line instead of the tables")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "megabyte").write_bytes(b"x" * MEGABYTE)
        measured = {
            "near": of_all(Path(folder), asked.mails, asked.repeats),
            "far": from_afar(Path(folder), max(1, asked.mails // 10), asked.repeats, asked.far / 1000),
        }
    if asked.json:
        sys.stdout.write(json.dumps(measured) + "\n")
        return
    for part, rows in measured.items():
        sys.stdout.write(f"{part}\n{table(rows, COLUMNS)}\n")


def of_all(folder: Path, mails: int, repeats: int) -> list[dict[str, Any]]:
    paper = stationery(folder)
    rsa_key, small_key = rsa.generate_private_key(65537, 2048), Ed25519PrivateKey.generate()
    rsa_signed = stationery(folder, signer=DkimSigner("example.com", "rsa", rsa_key))
    signed = stationery(folder, signer=DkimSigner("example.com", "ed", small_key))
    with sink() as one_by_one, sink("--pipelining") as port:
        return [
            median("one each", one_each(one_by_one), max(1, mails // 10), repeats),
            median("pooled", pooled(one_by_one, paper, PLAIN), mails, repeats),
            median("+ pipelining", pooled(port, paper, PLAIN), mails, repeats),
            median("+ template", pooled(port, paper, TEMPLATE), mails, repeats),
            median("+ DKIM Ed25519", pooled(port, signed, TEMPLATE), mails, repeats),
            median("+ DKIM RSA 2048", pooled(port, rsa_signed, TEMPLATE), mails, repeats),
            median("1 MB attached", pooled(port, signed, ATTACHED), max(1, mails // 20), repeats),
        ]


def from_afar(folder: Path, mails: int, repeats: int, delay: float) -> list[dict[str, Any]]:
    paper = stationery(folder)
    with sink("--delay", str(delay)) as one_by_one, sink("--delay", str(delay), "--pipelining") as port:
        return [
            median("pooled", pooled(one_by_one, paper, PLAIN), mails, repeats),
            median("+ pipelining", pooled(port, paper, PLAIN), mails, repeats),
        ]


@contextmanager
def sink(*arguments: str) -> Iterator[int]:
    command = [sys.executable, str(Path(__file__).with_name("far_mail_server.py")), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def pooled(port: int, paper: Stationery, content: dict[str, Any]) -> Any:
    """Return what opens a channel and sends one mail after another through it."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Callable[[int], Awaitable[object]]]:
        pool = SmtpPool(Relay("127.0.0.1", port, "off"), PoolLimits())
        channel = EmailChannel(pool, paper)

        async def send(number: int) -> object:
            job = job_for(notification(content, notificationId=f"n-{number}"))
            return await channel.send(await channel.compose(job))

        yield send
        await pool.close()
        channel.close()

    return opened


def one_each(port: int) -> Any:
    """Return what sends each mail over a connection of its own, as aiosmtplib's `send` does."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Callable[[int], Awaitable[object]]]:
        async def send(number: int) -> object:
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = "a@example.com", "b@example.com", f"Hello {number}"
            message.set_content(PLAIN["body"])
            return await aiosmtplib.send(message, hostname="127.0.0.1", port=port, start_tls=False)

        yield send

    return opened


def median(name: str, opened: Any, mails: int, repeats: int) -> dict[str, Any]:
    turns = [uvloop.run(turn(opened, mails)) for _ in range(repeats)]
    wall, cpu = (statistics.median(column) for column in zip(*turns, strict=True))
    return {"contender": name, "mailsPerSecond": mails / wall, "cpuMicroseconds": cpu / mails * 1e6}


async def turn(opened: Any, mails: int) -> tuple[float, float]:
    async with opened() as send:
        await send(-1)
        began, cpu = time.perf_counter(), time.process_time()
        numbers = iter(range(mails))

        async def work() -> None:
            for number in numbers:
                await send(number)

        await asyncio.gather(*(work() for _ in range(WORKERS)))
        return time.perf_counter() - began, time.process_time() - cpu


if __name__ == "__main__":
    main()
