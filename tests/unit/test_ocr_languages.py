from __future__ import annotations

import pytest

from ingestion_worker.ocr.languages import Languages, hint, understood

INSTALLED = {"eng", "deu", "chi_sim", "chi_tra", "srp_latn", "nor", "Latin"}


@pytest.mark.parametrize(
    ("asked", "codes", "unknown"),
    [
        ("eng", "eng", ()),
        ("de", "deu", ()),
        ("de-AT", "deu", ()),
        ("GER", "deu", ()),
        ("deu+eng", "deu+eng", ()),
        ("de+deu+en", "deu+eng", ()),
        ("zh", "chi_sim", ()),
        ("zh-TW", "chi_tra", ()),
        ("zh-Hant", "chi_tra", ()),
        ("chi_sim", "chi_sim", ()),
        ("sr-Latn", "srp_latn", ()),
        ("nb", "nor", ()),
        ("latin", "Latin", ()),
        ("fr", "", ("fr",)),
        ("fr+en", "eng", ("fr",)),
        ("xx", "", ("xx",)),
        (None, "", ()),
        ("++", "", ()),
        ("eng+deu+nor+chi_sim+chi_tra", "eng+deu+nor+chi_sim", ()),
    ],
)
def test_a_language_by_any_name(asked: str | None, codes: str, unknown: tuple[str, ...]) -> None:
    assert understood(asked, INSTALLED) == Languages(codes, unknown)


@pytest.mark.parametrize(
    ("asked", "hints"),
    [("deu+eng", ("de", "en")), ("de-AT", ("de",)), ("ger", ("de",)), (None, ()), ("tlh", ("tlh",))],
)
def test_a_service_is_told_in_its_own_names(asked: str | None, hints: tuple[str, ...]) -> None:
    assert hint(asked) == hints
