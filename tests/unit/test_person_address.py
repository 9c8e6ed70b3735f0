"""What counts as a person's address within a text, and what is left of the text without it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_ops.person.address import Person, email_spellings, phone_number

ADA = Person(("ada@example.com",))
PHONE = Person(phones=("+436601234567",))


@pytest.mark.parametrize(
    "text",
    [
        "ada@example.com",
        "ADA@EXAMPLE.COM",
        "Ada <ada@example.com>, bob@example.com",
        "mailto:ada@example.com?subject=x",
        "Write to ada@example.com.",
        '{"a": ["\\nada@example.com"]}',
        '{"a": "\\u0061da@example.com"}',
        '{"ada@example.com": 1}',
        '"{\\"email\\": \\"ada@example.com\\"}"',
    ],
)
def test_an_address_is_found_where_it_stands(text: str) -> None:
    assert ADA.is_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "xada@example.com",
        "x.ada@example.com",
        "ada+x@example.com",
        "ada@example.com.au",
        "ada@example.common",
    ],
)
def test_a_longer_address_is_another_one(text: str) -> None:
    assert not ADA.is_in(text)
    assert not ADA.is_in(json.dumps({"email": text}))


def test_who_somebody_is_goes_with_the_address_and_the_rest_stays() -> None:
    before = (
        '{"id":17.50,"first_name":"Ada","Last-Name":"L","emails":["ada@example.com"],"phone":436601234567,'
        '"company":{"name":"Engines","big":1e400},"n":null,"ok":true,"name":""}'
    )
    assert ADA.erased_json(before) == (
        '{"id":17.50,"first_name":"erased","Last-Name":"erased","emails":["erased"],"phone":"erased",'
        '"company":{"name":"Engines","big":1e400},"n":null,"ok":true,"name":""}'
    )


def test_whose_name_it_is_is_told_by_its_field() -> None:
    before = '{"name":"Deal","ownerEmail":"ada@example.com","ownerName":"Ada","leadName":"Bob","owner":"o-1"}'
    assert ADA.erased_json(before) == (
        '{"name":"Deal","ownerEmail":"erased","ownerName":"erased","leadName":"Bob","owner":"o-1"}'
    )


def test_json_within_json_is_looked_into() -> None:
    body = json.dumps({"text": "Hi\nada@example.com", "n": 1.50})
    after = ADA.erased_json(json.dumps({"content": {"body": body}}))
    assert after is not None
    assert json.loads(json.loads(after)["content"]["body"]) == {"text": "Hi\nerased", "n": 1.5}


def test_what_is_no_json_or_too_deep_is_plain_text() -> None:
    assert ADA.erased_json("{ada@example.com") == "{erased"
    deep = "[" * 100_000 + '"ada@example.com"' + "]" * 100_000
    assert ADA.erased_json(deep) == deep.replace("ada@example.com", "erased")


@pytest.mark.parametrize(
    "text", ["+436601234567", "0043 660 / 123 45 67", "436601234567", "tel:+43-660-1234567", "x436601234567"]
)
def test_a_number_is_found_with_its_separators(text: str) -> None:
    assert PHONE.is_in(text) == (not text.startswith("x"))


def test_mistakes_are_told() -> None:
    for text in ("0660 1234567", "+0660", "+43", "x"):
        with pytest.raises(ValueError, match="phone number"):
            phone_number(text)
    with pytest.raises(ValueError, match="e-mail"):
        email_spellings("ada")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=json_values, ascii_only=st.booleans())
def test_nothing_is_found_in_what_was_erased_and_the_rest_is_as_it_was(*, value: Any, ascii_only: bool) -> None:
    text = json.dumps({"before": value, "told": {"by": "Ada <ada@example.com>"}}, ensure_ascii=ascii_only)
    after = ADA.erased_json(text)
    assert after is not None
    assert not ADA.is_in(after)
    assert json.loads(after) == {"before": value, "told": {"by": "Ada <erased>"}}
