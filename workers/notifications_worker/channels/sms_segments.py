"""How many parts a text travels in: 3GPP TS 23.038 (the alphabet) and TS 23.040 (the parts), which providers bill by.

One character outside the GSM alphabet makes the whole text UCS-2, whose parts hold less than half as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Encoding", "Segments", "segment"]

GSM_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
# Sent as an escape and a second character.
GSM_EXTENDED = frozenset("\f^{}\\[~]|€")
LAST_OF_BASIC_PLANE = 0xFFFF


class Encoding(Enum):
    """A way to write text: its name, and the units of a text that fits one part, and of each part of a longer one."""

    GSM_7 = ("GSM-7", 160, 153)
    UCS_2 = ("UCS-2", 70, 67)

    def __init__(self, label: str, alone: int, joined: int) -> None:
        self.label = label
        self.alone = alone
        self.joined = joined

    def units(self, character: str) -> int:
        """Return what a character takes: 2 for an escaped one, or for a surrogate pair."""
        if self is Encoding.GSM_7:
            return 2 if character in GSM_EXTENDED else 1
        return 2 if ord(character) > LAST_OF_BASIC_PLANE else 1


@dataclass(frozen=True, slots=True)
class Segments:
    """A text as it travels."""

    encoding: Encoding
    parts: tuple[str, ...]


def segment(text: str) -> Segments:
    """Cut a text into its parts, none of which ends within a character."""
    encoding = _encoding(text)
    if sum(map(encoding.units, text)) <= encoding.alone:
        return Segments(encoding, (text,))
    return Segments(encoding, tuple(_parts(text, encoding)))


def _encoding(text: str) -> Encoding:
    return Encoding.GSM_7 if GSM_BASIC.union(GSM_EXTENDED).issuperset(text) else Encoding.UCS_2


def _parts(text: str, encoding: Encoding) -> list[str]:
    parts, begin, used = [], 0, 0
    for place, character in enumerate(text):
        units = encoding.units(character)
        if used + units > encoding.joined:
            parts.append(text[begin:place])
            begin, used = place, 0
        used += units
    return [*parts, text[begin:]]
