"""What a language is called: `de`, `de-AT`, `ger` and `deu` are one to people, and `deu` to Tesseract."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Languages", "hint", "understood"]

# Each costs time on every line.
MOST_AT_ONCE = 4
# ISO 639-1 to Tesseract's names, which are mostly those of ISO 639-2/T.
_BY_TWO_LETTERS = {
    "af": "afr", "am": "amh", "ar": "ara", "as": "asm", "az": "aze", "be": "bel", "bg": "bul", "bn": "ben", "bo": "bod",
    "br": "bre", "bs": "bos", "ca": "cat", "co": "cos", "cs": "ces", "cy": "cym", "da": "dan", "de": "deu", "dv": "div",
    "dz": "dzo", "el": "ell", "en": "eng", "eo": "epo", "es": "spa", "et": "est", "eu": "eus", "fa": "fas", "fi": "fin",
    "fo": "fao", "fr": "fra", "fy": "fry", "ga": "gle", "gd": "gla", "gl": "glg", "gu": "guj", "he": "heb", "hi": "hin",
    "hr": "hrv", "ht": "hat", "hu": "hun", "hy": "hye", "id": "ind", "is": "isl", "it": "ita", "iu": "iku", "ja": "jpn",
    "jv": "jav", "ka": "kat", "kk": "kaz", "km": "khm", "kn": "kan", "ko": "kor", "ky": "kir", "la": "lat", "lb": "ltz",
    "lo": "lao", "lt": "lit", "lv": "lav", "mi": "mri", "mk": "mkd", "ml": "mal", "mn": "mon", "mr": "mar", "ms": "msa",
    "mt": "mlt", "my": "mya", "nb": "nor", "ne": "nep", "nl": "nld", "nn": "nor", "no": "nor", "oc": "oci", "or": "ori",
    "pa": "pan", "pl": "pol", "ps": "pus", "pt": "por", "qu": "que", "ro": "ron", "ru": "rus", "sa": "san", "sd": "snd",
    "si": "sin", "sk": "slk", "sl": "slv", "sq": "sqi", "sr": "srp", "su": "sun", "sv": "swe", "sw": "swa", "ta": "tam",
    "te": "tel", "tg": "tgk", "th": "tha", "ti": "tir", "to": "ton", "tr": "tur", "tt": "tat", "ug": "uig", "uk": "ukr",
    "ur": "urd", "uz": "uzb", "vi": "vie", "yi": "yid", "yo": "yor", "zh": "chi_sim",
}  # fmt: skip
# ISO 639-2/B, and what else differs.
_OTHER_NAMES = {
    "alb": "sqi", "arm": "hye", "baq": "eus", "bur": "mya", "chi": "chi_sim", "cze": "ces", "dut": "nld", "fre": "fra",
    "geo": "kat", "ger": "deu", "gre": "ell", "ice": "isl", "mac": "mkd", "mao": "mri", "may": "msa", "nno": "nor",
    "nob": "nor", "per": "fas", "rum": "ron", "slo": "slk", "tib": "bod", "wel": "cym", "zho": "chi_sim",
}  # fmt: skip
_TRADITIONAL = {"hant", "tw", "hk", "mo"}
_TWO_LETTERS = {name: code for code, name in reversed(_BY_TWO_LETTERS.items())}


@dataclass(frozen=True, slots=True)
class Languages:
    """Tesseract's names joined by `+` (empty: none known), and what was asked for and is not there."""

    codes: str
    unknown: tuple[str, ...] = ()


def understood(asked: str | None, installed: Collection[str]) -> Languages:
    """Read what somebody calls the languages of a document, as far as they are `installed`."""
    by_lower = {name.lower(): name for name in installed}
    codes: dict[str, None] = {}
    unknown = []
    for tag in (asked or "").split("+"):
        if found := next((by_lower[name] for name in _names(tag) if name in by_lower), None):
            codes[found] = None
        elif tag:
            unknown.append(tag)
    return Languages("+".join(list(codes)[:MOST_AT_ONCE]), tuple(unknown))


def hint(asked: str | None) -> tuple[str, ...]:
    """Return the same as BCP 47 has it, for services that know those names."""
    tags = (tag for tag in (asked or "").split("+") if tag)
    return tuple(dict.fromkeys(_TWO_LETTERS.get(_names(tag)[-1], tag) for tag in tags))[:MOST_AT_ONCE]


def _names(tag: str) -> list[str]:
    """Return Tesseract's possible names of a tag, the best first."""
    base, *rest = re.split(r"[-_]", tag.lower())
    chinese = ["chi_tra"] if _BY_TWO_LETTERS.get(base) == "chi_sim" and _TRADITIONAL.intersection(rest) else []
    known = _BY_TWO_LETTERS.get(base) or _OTHER_NAMES.get(base) or base
    return ["_".join([base, *rest]), "_".join([known, *rest]), *chinese, known]
