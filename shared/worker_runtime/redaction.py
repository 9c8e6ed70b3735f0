"""Takes secrets and personal data out of text that leaves the process: log lines, `failedReason`, health answers."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?$|secret|token$|authori[sz]ation|credential|cookie|(api|access|private)_?key", re.IGNORECASE
)
URL_LOGIN = re.compile(r"(?<=://)[^\s/@:]*:[^\s/]*@")
# Possessive (++) and never begun within itself, or a long text without a domain would be read once for each character.
EMAIL = re.compile(r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]++@(?=[\w-]++(?:\.[\w-]+)+)")
PHONE = re.compile(r"(?<![\w+])\+[1-9][\d ().-]{5,18}(\d\d)(?!\d)")


def redact(text: str) -> str:
    """Mask logins in URLs, the person in e-mail addresses (the domain stays) and all but the end of phone numbers."""
    if "@" in text:
        text = EMAIL.sub(f"{MASK}@", URL_LOGIN.sub(f"{MASK}@", text))
    return PHONE.sub(rf"+{MASK}\1", text) if "+" in text else text


def redact_value(key: str, value: Any) -> Any:
    """Redact a named value of any JSON shape; what has a secret's name is masked whole."""
    if value and isinstance(value, (str, bytes)) and SECRET_KEY.search(key):
        return MASK
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {inner: redact_value(str(inner), item) for inner, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_value(key, item) for item in value]
    if isinstance(value, BaseException):
        return redact(f"{type(value).__name__}: {value}")
    return value
