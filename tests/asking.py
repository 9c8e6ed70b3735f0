"""Asking a worker over HTTP to do something."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

TOKEN = "correct horse bättery"
KEY = f"Bearer {TOKEN}"


def ask(
    url: str, key: str | None = KEY, body: bytes | None = b"{}", method: str = "POST"
) -> tuple[int, dict[str, Any], dict[str, str]]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": key.encode().decode("latin-1")} if key else {})
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)
