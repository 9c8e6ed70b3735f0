"""Writes OLE compound files, which no small library writes: enough of [MS-CFB] for mails and old Office documents."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import pairwise

SECTOR = 512
FREE, END, FAT_SECTOR = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Streams shorter than this share a place of their own, in pieces of 64 bytes.
CUTOFF = 4096

Tree = dict[str, "bytes | Tree"]


@dataclass
class _Entry:
    name: str
    kind: int
    content: bytes = b""
    start: int = END
    child: int = FREE
    right: int = FREE
    children: list[int] = field(default_factory=list)


def compound_file(tree: Tree) -> bytes:
    """Return a file with these streams (bytes) in these storages (dictionaries)."""
    entries = [_Entry("Root Entry", 5)]
    _add(tree, entries, 0)
    sectors: list[bytes] = []
    fat: list[int] = []
    mini = bytearray()
    mini_fat: list[int] = []
    for entry in entries[1:]:
        if entry.kind != 2:
            continue
        if len(entry.content) >= CUTOFF:
            entry.start = _store(entry.content, sectors, fat)
        elif entry.content:
            count = -(-len(entry.content) // 64)
            entry.start = len(mini_fat)
            mini_fat += [*range(entry.start + 1, entry.start + count), END]
            mini += entry.content.ljust(count * 64, b"\0")
    entries[0].start = _store(bytes(mini), sectors, fat) if mini else END
    entries[0].content = bytes(mini)
    mini_start = _store(struct.pack(f"<{len(mini_fat)}I", *mini_fat), sectors, fat, b"\xff") if mini_fat else END
    directory = b"".join(map(_directory_entry, entries))
    directory_start = _store(directory, sectors, fat)
    fat_sectors = 1
    while (len(fat) + fat_sectors) * 4 > fat_sectors * SECTOR:
        fat_sectors += 1
    places = list(range(len(fat), len(fat) + fat_sectors))
    fat += [FAT_SECTOR] * fat_sectors
    table = struct.pack(f"<{len(fat)}I", *fat).ljust(fat_sectors * SECTOR, b"\xff")
    header = (
        MAGIC
        + bytes(16)
        + struct.pack(
            "<HHHHH6xIIIIIIIII",
            0x3E,
            3,
            0xFFFE,
            9,
            6,
            0,
            fat_sectors,
            directory_start,
            0,
            CUTOFF,
            mini_start,
            -(-len(mini_fat) * 4 // SECTOR),
            END,
            0,
        )
    )
    difat = struct.pack("<109I", *(places + [FREE] * (109 - len(places))))
    return header + difat + b"".join(sectors) + table


def _add(tree: Tree, entries: list[_Entry], parent: int) -> None:
    names = sorted(tree, key=lambda name: (len(name), name.upper()))
    numbers = []
    for name in names:
        content = tree[name]
        entry = _Entry(name, 2, content) if isinstance(content, bytes) else _Entry(name, 1)
        entries.append(entry)
        numbers.append(len(entries) - 1)
        if not isinstance(content, bytes):
            _add(content, entries, len(entries) - 1)
    if numbers:
        entries[parent].child = numbers[0]
    for before, after in pairwise(numbers):
        entries[before].right = after


def _store(content: bytes, sectors: list[bytes], fat: list[int], fill: bytes = b"\0") -> int:
    start = len(fat)
    count = max(-(-len(content) // SECTOR), 1)
    content = content.ljust(count * SECTOR, fill)
    sectors += [content[at : at + SECTOR] for at in range(0, len(content), SECTOR)]
    fat += [*range(start + 1, start + count), END]
    return start


def _directory_entry(entry: _Entry) -> bytes:
    name = entry.name.encode("utf-16-le") + b"\0\0"
    return (
        name.ljust(64, b"\0")
        + struct.pack("<HBBIII", len(name), entry.kind, 1, FREE, entry.right, entry.child)
        + bytes(16 + 4 + 16)
        + struct.pack("<IQ", entry.start, len(entry.content))
    )
