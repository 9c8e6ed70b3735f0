"""The text of mails that Outlook keeps as compressed RTF alone ([MS-OXRTFCP])."""

from __future__ import annotations

import struct

from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.reading.extractors.rtf import blocks_of_rtf

__all__ = ["text_of_compressed_rtf", "unpacked_rtf"]

COMPRESSED, PLAIN = b"LZFu", b"MELA"
HEAD = 16
# What the dictionary begins with, by specification.
DICTIONARY = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript "
    b"\\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par "
    b"\\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)
RING = 4_096
# Bytes of an RTF: one reference makes 17 bytes of 2 at most.
MOST_UNPACKED = 67_108_864


def text_of_compressed_rtf(packed: bytes) -> str:
    """Return what a mail says. Raises CORRUPT for what is no compressed RTF."""
    return "\n\n".join(blocks_of_rtf(unpacked_rtf(packed)))


def unpacked_rtf(packed: bytes) -> bytes:
    """Return the RTF itself."""
    if len(packed) < HEAD:
        raise _corrupt()
    _, size, kind, _ = struct.unpack_from("<II4sI", packed)
    if kind == PLAIN:
        return packed[HEAD : HEAD + size]
    if kind != COMPRESSED or size > MOST_UNPACKED:
        raise _corrupt()
    return _unpacked(packed[HEAD:], size)


def _unpacked(packed: bytes, size: int) -> bytes:
    ring = bytearray(DICTIONARY.ljust(RING, b"\0"))
    write = len(DICTIONARY)
    out = bytearray()
    at = 0
    while at < len(packed) and len(out) < size:
        control = packed[at]
        at += 1
        for bit in range(8):
            if at + (control >> bit & 1) >= len(packed):
                return bytes(out)
            if not control >> bit & 1:
                piece, at = packed[at : at + 1], at + 1
            else:
                reference, at = packed[at] << 8 | packed[at + 1], at + 2
                offset, length = reference >> 4, (reference & 15) + 2
                if offset == write:  # By specification the end.
                    return bytes(out)
                piece = _repeated(ring, offset, length, write)
            for byte in piece:
                ring[write] = byte
                write = (write + 1) % RING
            out += piece
    return bytes(out)


def _repeated(ring: bytearray, offset: int, length: int, write: int) -> bytes:
    """Read from the ring; what is read may only just be written."""
    piece = bytearray()
    for step in range(length):
        place = (offset + step) % RING
        behind = (place - write) % RING
        piece.append(piece[behind] if behind < step else ring[place])
    return bytes(piece)


def _corrupt() -> DocumentError:
    return DocumentError(Problem.CORRUPT, "the text of the mail is damaged: save it as .eml or .pdf")
