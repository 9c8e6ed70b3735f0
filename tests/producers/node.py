"""Node with `pg`."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from interop.node_packages import node_packages
from producers.producer import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from producers.producer import Move

WRITER = Path(__file__).with_name("node_writer.mjs")


@contextmanager
def node_pg(url: str) -> Iterator[Move]:
    """A process for each transaction."""
    command = ["node", str(WRITER), str(node_packages()), str(EXAMPLES / "produce_pg.mjs"), url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield lambda lead_id, status: ask(process, {"lead": lead_id, "status": status})
        except BaseException:
            ask(process, {"end": "ROLLBACK"})
            raise
        else:
            ask(process, {"end": "COMMIT"})


def ask(process: subprocess.Popen[str], question: dict[str, str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"
