"""The libraries that documents pass through tell nobody of it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("library", ["onnxruntime", "kreuzberg", "pypdfium2"])
def test_a_library_that_is_loaded_begins_no_session_with_its_maker(library: str, tmp_path: Path) -> None:
    """The runtime's later releases do, and leave the session's id in the folder for temporary files."""
    script = f"import {library}, os; print(*os.listdir(os.environ['TMPDIR']))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "\n"
