"""The generated pages are what the code says today."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", ["settings.md", "metrics.md"])
def test_a_generated_page_is_up_to_date(name: str) -> None:
    pages = runpy.run_path(str(FOLDER / "generate.py"))["pages"]()
    assert (FOLDER / name).read_text(encoding="utf-8") == pages[name], "run: python docs/reference/generate.py"
