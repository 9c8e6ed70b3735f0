"""The one form in which a phone number is accepted: E.164, as `+15005550006`.

`phonenumbers` alone would also take `tel:` links, extensions, letters, full-width digits and a trailing line break, and
text a number other than the one that was written.
"""

from __future__ import annotations

import re

import phonenumbers

from worker_runtime.outcome import PermanentError

__all__ = ["e164", "shown"]

E164 = re.compile(r"\+[1-9][0-9]{6,14}")
SHOWN_DIGITS = 2


def e164(number: str | None, *, assigned: bool) -> str:
    """Return a number that can exist; with `assigned`, one in a range that is in use in its country.

    Raises PermanentError for any other, without repeating it.
    """
    if number is None:
        raise _invalid("is missing")
    if not E164.fullmatch(number):
        raise _invalid("is not a number in E.164, such as +15005550006")
    return _known(number, assigned=assigned)


def shown(number: str) -> str:
    """Return a number as a log line may hold it: the last two digits."""
    return f"+***{number[-SHOWN_DIGITS:]}"


def _known(number: str, *, assigned: bool) -> str:
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        raise _invalid("begins with no country's code") from None  # The library quotes the number.
    if not phonenumbers.is_possible_number(parsed):
        raise _invalid("is too short or too long for its country")
    if assigned and not phonenumbers.is_valid_number(parsed):
        raise _invalid("is in no range its country has assigned (SMS_REQUIRE_ASSIGNED_NUMBER is on)")
    return number


def _invalid(what: str) -> PermanentError:
    return PermanentError("INVALID_PAYLOAD", f"recipient.phone {what}")
