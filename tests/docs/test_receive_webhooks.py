"""The page shows the files as they are, and both verify what we sign, and nothing else."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from notifications_worker.channels.webhook_signature import AsymmetricKey, new_secret, read_key, signed_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "receive-webhooks.md").read_text()
EXAMPLES = ROOT / "docs" / "how-to" / "examples"
BODY = '{"b":1,  "a":"é"}'.encode()
Case = tuple[str, dict[str, str], bytes]

ASK_NODE = """
import { isGenuine } from %s;
let text = "";
for await (const piece of process.stdin) text += piece;
const genuine = ([key, headers, body]) => isGenuine(key, headers, Buffer.from(body, "base64"));
console.log(JSON.stringify(JSON.parse(text).map(genuine)));
"""


@pytest.mark.parametrize(("language", "name"), [("python", "verify_webhook.py"), ("js", "verify_webhook.mjs")])
def test_the_page_shows_the_file_as_it_is(language: str, name: str) -> None:
    assert re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) == [(EXAMPLES / name).read_text()]


def python_says(cases: Sequence[Case]) -> list[bool]:
    spec = importlib.util.spec_from_file_location("verify_webhook", EXAMPLES / "verify_webhook.py")
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [module.is_genuine(*case) for case in cases]


def node_says(cases: Sequence[Case]) -> list[bool]:
    asked = json.dumps([(key, headers, base64.b64encode(body).decode()) for key, headers, body in cases])
    script = ASK_NODE % json.dumps((EXAMPLES / "verify_webhook.mjs").as_uri())
    command = ["node", "--input-type=module", "-e", script]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answers: list[bool] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("says", [python_says, pytest.param(node_says, marks=pytest.mark.needs("node"))])
def test_the_example_tells_ours_from_anybody_elses(says: Callable[[Sequence[Case]], list[bool]]) -> None:
    old, new, private = new_secret(), new_secret(), new_secret(asymmetric=True)
    key = read_key(private)
    assert isinstance(key, AsymmetricKey)
    now = int(time.time())
    rotating = signed_headers([read_key(new), read_key(old)], "m-1", now, BODY)
    both = signed_headers([key, read_key(new)], "m-1", now, BODY)
    genuine: list[Case] = [(old, rotating, BODY), (new, rotating, BODY), (new, both, BODY), (key.public, both, BODY)]
    forged: list[Case] = [
        (old, both, BODY),
        (key.public, rotating, BODY),
        (new, rotating, BODY + b" "),
        (key.public, both, BODY + b" "),
        (new, rotating | {"webhook-id": "m-2"}, BODY),
        (new, rotating | {"webhook-timestamp": str(now + 1)}, BODY),
        (new, signed_headers([read_key(new)], "m-1", now - 400, BODY), BODY),
        (new, signed_headers([read_key(new)], "m-1", now + 400, BODY), BODY),
        (new, rotating | {"webhook-signature": ""}, BODY),
        (new, rotating | {"webhook-signature": "v1,"}, BODY),
        (key.public, both | {"webhook-signature": "v1a,AAAA"}, BODY),
        (new, {}, BODY),
    ]
    assert says(genuine) == [True] * len(genuine)
    assert says(forged) == [False] * len(forged)
