"""The generated pages are what the code says today."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from embedded_stack.stack import WORKERS
from events_worker.contracts import load_catalogue
from events_worker.contracts.reference import reference

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
PAGES = runpy.run_path(str(FOLDER / "generate.py"))["pages"]()


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name], "run: python docs/reference/generate.py"


@pytest.mark.parametrize("worker", WORKERS)
def test_every_worker_s_settings_are_there(worker: str) -> None:
    assert f"\n## Only `{worker}`\n" in PAGES["settings.md"]


def test_the_page_of_events_says_how_older_versions_are_read_and_what_is_inside_of_fields() -> None:
    page = reference(load_catalogue(Path(__file__).parents[1] / "contracts_sample.yaml"))
    for line in (
        "A contract was signed. Version 3.0, key `deal.signed:{dealId}`. After a dead letter, the later events of its",
        'Version 2.0 is read too: `currency` is `"EUR"` where it is absent or null.',
        '`state` changes from `OPEN` to `"open"`, `WON` to `"won"`, `LOST` to `"lost"`; `currency` is dropped.',
        "`ownerId` becomes `owner.id`;",
        "`tags` becomes a list;",
        "| `owner.kind` | | one of user, team | |",
        "| `amount.value` | required | number | |",
        "| `list` | | array of integer or null, at least 2, at least 1 entries, at most 3 entries | |",
        "| `people[].id` | required | string | |",
        '| `kind` | | one of a, 1, true, null, [1], {"b": 2} | |',
        "| `anything` | | anything | |",
    ):
        assert line in page
