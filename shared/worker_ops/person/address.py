"""A person's addresses, and where they stand in a text: however they are spelled, and not within longer ones."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import email_validator

from notifications_worker.notification import bare_address
from notifications_worker.suppression import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

ERASED = "erased"
E164 = re.compile(r"\+[1-9]\d{6,14}")
SEPARATOR = r"[ ().\-/]"
# What says who it is, beside an address in the same JSON object; compared without capitals, `_` and `-`.
PERSONAL_FIELDS = (
    "name firstname middlename lastname fullname displayname givenname familyname surname contactname customername"
    " recipientname leadname email emailaddress phone phonenumber mobile mobilephone telephone fax address street"
    " streetaddress postalcode zip birthdate dateofbirth"
)


class Number(str):
    """A number of a JSON text, exactly as it is written there."""

    __slots__ = ()


def email_spellings(text: str) -> tuple[str, ...]:
    """Return the ways an e-mail address may be written, capital letters apart; raises `ValueError` for none."""
    try:
        address = email_validator.validate_email(text.strip(), check_deliverability=False, globally_deliverable=False)
    except email_validator.EmailNotValidError as error:
        raise ValueError(f"{text!r} is not an e-mail address: {error}") from None
    # The second is how a notification's recipient is recorded.
    known = {text.strip(), bare_address(text.strip())}
    known |= {f"{address.local_part}@{domain}" for domain in (address.domain, address.ascii_domain)}
    forms = {unicodedata.normalize(form, one) for one in known for form in ("NFC", "NFD")}
    return tuple(sorted(forms))


def phone_number(text: str) -> str:
    """Return a phone number in E.164; raises `ValueError` for what is none."""
    number = re.sub(SEPARATOR, "", text)
    if not E164.fullmatch(number):
        raise ValueError(f"{text!r} is not a phone number with its country, like +436601234567")
    return number


def email_pattern(spelling: str) -> str:
    """Return what finds an e-mail address and no longer one that it is a part of."""
    return rf"(?<![\w.+%-]){re.escape(spelling)}(?![\w-]|\.\w)"


def phone_pattern(number: str) -> str:
    """Return what finds a phone number, with or without `+` and separators, and no longer one."""
    return rf"(?<![\w+])(?:\+|00)?{spaced(number)}(?!\d)"


def spaced(number: str) -> str:
    """Return what finds a number's digits, with or without separators among them."""
    return f"{SEPARATOR}{{0,3}}".join(number.removeprefix("+"))


@dataclass(frozen=True)
class Person:
    """Somebody, by e-mail addresses and phone numbers (E.164)."""

    emails: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What stands for the addresses where they themselves must not, as in the list of suppressed addresses."""
        spelled = [one for email in self.emails for one in email_spellings(email)]
        return tuple(dict.fromkeys(fingerprint(address) for address in (*spelled, *self.phones)))

    @cached_property
    def loose(self) -> str:
        """What finds all places for a closer look, to Python and to PostgreSQL, whatever JSON makes of a line break."""
        emails = [re.escape(one) for email in self.emails for one in email_spellings(email)]
        return "|".join([*emails, *map(spaced, self.phones)])

    @cached_property
    def _loose(self) -> re.Pattern[str]:
        return re.compile(self.loose, re.IGNORECASE)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        emails = [email_pattern(one) for email in self.emails for one in email_spellings(email)]
        return re.compile("|".join([*emails, *map(phone_pattern, self.phones)]), re.IGNORECASE)

    def is_in(self, text: str) -> bool:
        """Tell whether a text holds an address; a JSON text by what its escapes mean."""
        if not self._loose.search(text) and "\\u" not in text:
            return False
        return self.erased_json(text) is not None

    def erased(self, text: str) -> str:
        """Return a text without the addresses."""
        return self._pattern.sub(ERASED, text)

    def erased_json(self, text: str) -> str | None:
        """Return a JSON text without the addresses and what stands beside them about a person; `None` without any.

        Numbers stay as they are written. What is no JSON, or too deep, is taken as plain text.
        """
        try:
            value, held = self._without(json.loads(text, parse_int=Number, parse_float=Number))
            return written(value) if held else None
        except (ValueError, RecursionError):
            return self.erased(text) if self._pattern.search(text) else None

    def _without(self, value: Any) -> tuple[Any, bool]:
        if isinstance(value, dict):
            return self._object_without(value)
        if isinstance(value, list):
            parts = [self._without(one) for one in value]
            return [part for part, _ in parts], any(held for _, held in parts)
        if isinstance(value, Number):
            return (ERASED, True) if self._pattern.fullmatch(value) else (value, False)
        return self._text_without(value) if isinstance(value, str) else (value, False)

    def _text_without(self, text: str) -> tuple[str, bool]:
        """Look into a text, which may be a message's body and JSON itself."""
        after = self.erased_json(text) if text[:1] in ("{", "[") and self.is_in(text) else None
        after = self.erased(text) if after is None else after
        return after, after != text

    def _object_without(self, value: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        parts = {self.erased(name): self._without(one) for name, one in value.items()}
        held = [plain(name) for name, (part, found) in parts.items() if found and not isinstance(part, dict)]
        about = names_beside(held)
        return (
            {name: ERASED if tells(part) and plain(name) in about else part for name, (part, _) in parts.items()},
            any(found for _, found in parts.values()) or parts.keys() != value.keys(),
        )


def tells(value: object) -> bool:
    """Tell whether a field says anything that could be somebody's name."""
    return isinstance(value, str) and bool(value)


def plain(name: str) -> str:
    """Return a field's name without what languages disagree on."""
    return re.sub(r"[_\- ]", "", name).lower()


def names_beside(held: Sequence[str]) -> set[str]:
    """Return the fields that say who somebody is whose address is in those: `ownername` beside `owneremail`."""
    fields = PERSONAL_FIELDS.split()
    prefixes = {name.removesuffix(field) for name in held for field in fields if name.endswith(field)}
    return {prefix + field for prefix in prefixes or ({""} if held else ()) for field in fields}


def written(value: Any) -> str:
    """Write JSON that may hold a `Number`."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{written(str(name))}:{written(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
