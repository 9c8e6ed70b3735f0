"""What is drawn on a page of a PDF: whether its text can be seen, and whether there are pictures."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import pypdfium2.raw as pdfium

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pypdfium2

__all__ = ["PageLook", "look_at"]

# Objects looked at, and forms within forms: a page that has said nothing by then is an ordinary one.
MOST_OBJECTS = 400
DEEPEST_FORM = 4
# So many lines and curves, and no text, are letters turned into outlines, or a drawing with letters in it.
MANY_PATHS = 100
# Part of the page that a picture covers.
MOSTLY = 0.5


class PageLook(NamedTuple):
    """What there is to see."""

    has_picture: bool
    is_mostly_picture: bool
    only_invisible_text: bool


def look_at(page: pypdfium2.PdfPage, *, has_text: bool) -> PageLook:
    """Look until it is clear what kind of page this is: for ordinary text, at its first objects."""
    width, height = page.get_size()
    largest, paths, hidden = 0.0, 0, False
    for kind, one in _objects(page):
        if kind == pdfium.FPDF_PAGEOBJ_TEXT and has_text:
            if pdfium.FPDFTextObj_GetTextRenderMode(one) != pdfium.FPDF_TEXTRENDERMODE_INVISIBLE:
                return _visible(largest)
            hidden = True
        elif kind == pdfium.FPDF_PAGEOBJ_IMAGE:
            largest = max(largest, _area(one) / max(width * height, 1.0))
        elif kind in (pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_SHADING):
            paths += 1
    has_picture = largest > 0 or paths >= MANY_PATHS
    return PageLook(has_picture, largest >= MOSTLY, hidden)


def _visible(largest: float) -> PageLook:
    return PageLook(largest > 0, largest >= MOSTLY, only_invisible_text=False)


def _objects(page: pypdfium2.PdfPage) -> Iterator[tuple[int, Any]]:
    """Yield objects with their kinds, those in forms after the form."""
    budget = MOST_OBJECTS
    waiting = [(page.raw, pdfium.FPDFPage_CountObjects, pdfium.FPDFPage_GetObject, 0)]
    while waiting:
        owner, count, get, depth = waiting.pop()
        for index in range(min(count(owner), budget)):
            one = get(owner, index)
            kind = pdfium.FPDFPageObj_GetType(one)
            if kind == pdfium.FPDF_PAGEOBJ_FORM and depth < DEEPEST_FORM:
                waiting.append((one, pdfium.FPDFFormObj_CountObjects, pdfium.FPDFFormObj_GetObject, depth + 1))
            yield kind, one
            budget -= 1


def _area(one: Any) -> float:
    sides = [ctypes.c_float() for _ in range(4)]
    if not pdfium.FPDFPageObj_GetBounds(one, *map(ctypes.byref, sides)):
        return 0.0
    left, bottom, right, top = (side.value for side in sides)
    return abs((right - left) * (top - bottom))
