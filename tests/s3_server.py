"""An S3 server of somebody else's (moto), in a process of its own, that checks signatures as Amazon does.

It takes any signature for the first requests after it was told to start anew, in which a user is made.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, build_opener

import boto3
from botocore.config import Config

from embedded_stack import process
from embedded_stack.ports import free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

REGION = "eu-west-1"
BUCKET = "documents"
START_SECONDS = 60.0
# Making a user, its policy and its key; from then on a request needs a signature.
UNCHECKED_REQUESTS = 3
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@dataclass
class S3Server:
    port: int
    server: subprocess.Popen[bytes]
    key_id: str = "nobody"
    secret: str = "none"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client of it needs, as Amazon's own tools call it."""
        return {
            "AWS_ENDPOINT": self.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    def client(self, service: str = "s3") -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=self.key_id,
            aws_secret_access_key=self.secret,
            config=Config(retries={"max_attempts": 1}, proxies={}),
        )

    def put(self, key: str, body: bytes) -> None:
        self.client().put_object(Bucket=BUCKET, Key=key, Body=body)

    def keys(self) -> list[str]:
        return sorted(found["Key"] for found in self.client().list_objects_v2(Bucket=BUCKET).get("Contents", []))

    def freeze(self) -> None:
        self.server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.server.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        process.end(self.server, seconds_each=1.0)

    def prepare(self) -> None:
        """Make a user that may do everything, and a bucket."""
        iam = self.client("iam")
        iam.create_user(UserName="worker")
        iam.put_user_policy(UserName="worker", PolicyName="everything", PolicyDocument=json.dumps(EVERYTHING))
        made = iam.create_access_key(UserName="worker")["AccessKey"]
        self.key_id, self.secret = made["AccessKeyId"], made["SecretAccessKey"]
        self.client().create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(UNCHECKED_REQUESTS)}
    log = folder / "s3.log"
    server = S3Server(
        port, process.spawn(command, log=log, death_signal=signal.SIGKILL, cwd=folder, environment=environment)
    )
    try:
        _wait_for(server, log)
        server.prepare()
        yield server
    finally:
        server.stop()


def _wait_for(server: S3Server, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with build_opener(ProxyHandler({})).open(f"{server.url}/moto-api/", timeout=5):
                return
        except OSError:
            if time.monotonic() > until or server.server.poll() is not None:
                raise AssertionError(f"it did not start: {log.read_text()[-2000:]}") from None
            # It tells nobody that it listens.
            time.sleep(0.05)
