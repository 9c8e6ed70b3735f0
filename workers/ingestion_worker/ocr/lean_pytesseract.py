"""pytesseract without what it would like to have.

It loads numpy and pandas where they are installed, to accept their arrays and return their tables. Neither is used
here, and each child that reads a page would pay for them: a quarter of a second, 30 MB, and the threads numpy starts.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["pytesseract"]


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Have modules look as if they were not installed, unless they are loaded already."""
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in names if name not in modules]
    try:
        for name in hidden:
            modules[name] = None  # What Python understands by a module that is not there.
        yield
    finally:
        for name in hidden:
            del modules[name]


with _hidden("numpy", "pandas"):
    from pytesseract import pytesseract
