"""How a command ends that cannot do what it was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_ops.exit_codes import ExitCode


class CommandEnded(Exception):
    """Ends the command with a code; the sentence says why and what helps."""

    def __init__(self, code: ExitCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
