"""What a file may unfold to: looked at before anything is unfolded."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["guard_picture", "guard_zip"]

# Entries of an archive. A presentation of a thousand slides with pictures has some 10,000.
MOST_ENTRIES = 20_000
# Bytes that all entries say they unfold to; zipfile gives no more than an entry says.
MOST_UNFOLDED = 1_073_741_824
# Below this nobody cares how well something packs: sheets of one number reach 1 : 300.
CARELESS_UNFOLDED = 67_108_864
# Real sheets, the best packed of all office parts, stay below 1 : 60 where they are large; deflate ends at 1 : 1,032.
MOST_RATIO = 100
# Pixels of one picture. 16 bits a channel need 2 GB for it; a page of A4 at 1,200 dpi has 139 million.
MOST_PIXELS = 250_000_000


def guard_zip(path: Path) -> None:
    """Refuse an archive that is encrypted or unfolds to too much. Raises `zipfile.BadZipFile` for a broken one."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        raise DocumentError(Problem.BOMB, f"it is an archive of {len(entries)} files; {MOST_ENTRIES} are accepted")
    if any(entry.flag_bits & 1 for entry in entries):
        raise DocumentError(Problem.ENCRYPTED, "its parts are encrypted in a way that we cannot open: send it without")
    _guard_ratio(sum(entry.file_size for entry in entries), path.stat().st_size)


def _guard_ratio(unfolded: int, packed: int) -> None:
    if unfolded > CARELESS_UNFOLDED and unfolded > packed * MOST_RATIO:
        raise DocumentError(
            Problem.BOMB, f"it unfolds to {unfolded // packed} times its size; {MOST_RATIO} is accepted"
        )
    if unfolded > MOST_UNFOLDED:
        raise DocumentError(Problem.TOO_LARGE, f"it unfolds to {unfolded} bytes; {MOST_UNFOLDED} are accepted")


def guard_picture(width: int, height: int) -> None:
    """Refuse a picture by the size in its header."""
    if width * height > MOST_PIXELS:
        raise DocumentError(
            Problem.BOMB, f"its picture would have {width} x {height} pixels; {MOST_PIXELS} are accepted"
        )
