"""A mail worker as it is usually written: the `bullmq` package's Worker, and a connection for each mail."""

from __future__ import annotations

import asyncio
import os
import sys
from email.message import EmailMessage
from typing import Any

import aiosmtplib
from bullmq import Worker

PREFIX, NAME = "intelliflow:notifications", "email"


async def send(job: Any, token: str) -> dict[str, Any]:
    content = job.data["content"]
    message = EmailMessage()
    message["From"] = "noreply@intelliflow.com"
    message["To"] = job.data["recipient"]["email"]
    message["Subject"] = content["subject"]
    message.set_content(content["body"])
    await aiosmtplib.send(message, hostname="127.0.0.1", port=int(os.environ["SMTP_PORT"]), start_tls=False)
    return {"success": True}


async def main() -> None:
    options = {"connection": os.environ["REDIS_URL"], "prefix": PREFIX, "concurrency": int(os.environ["AT_ONCE"])}
    worker = Worker(NAME, send, options)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await worker.close(force=True)


if __name__ == "__main__":
    asyncio.run(main())
