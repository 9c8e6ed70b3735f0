from __future__ import annotations

import phonenumbers
import pytest

from notifications_worker.channels.sms_number import e164, shown
from worker_runtime.outcome import PermanentError

KINDS = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)


def in_e164(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


EXAMPLES = [
    in_e164(number)
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
    for kind in KINDS
    if (number := phonenumbers.example_number_for_type(region, kind))
]
UNASSIGNED = [
    in_e164(number)
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
    if (number := phonenumbers.invalid_example_number(region))
]


def test_every_countrys_numbers_are_accepted() -> None:
    assert len(EXAMPLES) > 480
    # Shorter than E.164's own seven digits are a few islands' fixed lines, which get no SMS.
    longer = [number for number in EXAMPLES if len(number) > len("+1234567")]
    assert [e164(number, assigned=True) for number in longer] == longer
    assert len(longer) > 480


def test_numbers_nobody_has_are_refused_when_asked_to() -> None:
    assert len(UNASSIGNED) > 200
    for number in UNASSIGNED:
        with pytest.raises(PermanentError):
            e164(number, assigned=True)


def test_a_number_that_is_only_not_assigned_is_accepted_by_default() -> None:
    assert e164("+15555550006", assigned=False) == "+15555550006"
    with pytest.raises(PermanentError, match="assigned"):
        e164("+15555550006", assigned=True)


@pytest.mark.parametrize(
    "number",
    [
        None,
        "",
        "15005550006",
        "+05005550006",
        "+15005550006\n",
        " +15005550006",
        "+1 500 555 0006",
        "+1500555",
        "+15005550006;ext=3",
        "tel:+15005550006",
        "+1800FLOWERS",
        "+１５００５５５０００６",  # noqa: RUF001  full-width digits
        "+١٥٠٠٥٥٥٠٠٠٦",
        "+1500555000612345",
        "+999123456789",
        "+4915",
        "+15005550006,+15005550007",
    ],
)
def test_anything_else_is_refused_without_being_repeated(number: str | None) -> None:
    with pytest.raises(PermanentError) as refused:
        e164(number, assigned=False)

    assert str(refused.value).startswith("INVALID_PAYLOAD: recipient.phone ")
    digits = [digit for digit in (number or "") if digit.isdigit()]
    assert not digits or "".join(digits[-7:]) not in str(refused.value).replace("+15005550006", "")


def test_only_the_last_two_digits_are_shown() -> None:
    assert shown("+15005550006") == "+***06"
