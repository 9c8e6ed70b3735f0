"""What is wrong with a definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker_runtime.yaml_source import MOST_COMPLAINTS, on_one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker_runtime.yaml_source import Complaint

__all__ = ["DefinitionError"]


class DefinitionError(Exception):
    """A definition cannot be used. The message has a line for each mistake: `steps.2.http.url: what is wrong`."""

    def __init__(self, complaints: Iterable[Complaint]) -> None:
        self.complaints = tuple(complaints)
        sentences = dict.fromkeys(map(_sentence, self.complaints[:MOST_COMPLAINTS]))
        more = [f"and {left} more"] if (left := len(self.complaints) - MOST_COMPLAINTS) > 0 else []
        super().__init__("\n".join([*sentences, *more]))


def _sentence(complaint: Complaint) -> str:
    where = ".".join(map(str, complaint.place))
    return on_one_line(f"{where}: {complaint.sentence}" if where else complaint.sentence)
