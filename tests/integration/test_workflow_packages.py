"""What `workflow-worker check` says about packages whose workflows cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from worker_runtime import command_line
from workflow_worker.settings import WorkflowSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKS = "from workflow_worker.registry import function, workflow\n"
LOUD = f"""{MARKS}
import functools

def loud(code):
    @functools.wraps(code)
    async def inner(*arguments):
        return await code(*arguments)
    return inner

@loud
@workflow("w")
async def f(ctx): ...
"""
Check = Callable[[str], tuple[int, list[str]]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Check]:
    """Do what the command does for a package `crm` of one file, without a process for each question."""
    before = set(sys.modules)

    def run(source: str) -> tuple[int, list[str]]:
        (tmp_path / "crm.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("DATABASE_URL", "postgresql://h/d")
        monkeypatch.setenv("WORKFLOW_PACKAGES", "crm")
        return command_line.check(WorkflowSettings), capsys.readouterr().out.splitlines()

    yield run
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import nowhere\n", "crm cannot be imported: ModuleNotFoundError: No module named 'nowhere' (crm.py:1)"),
        ("raise SystemExit('no')\n", "crm cannot be imported: SystemExit: no (crm.py:1)"),
        ("def f(:\n", "crm cannot be imported: SyntaxError: invalid syntax (crm.py, line 1)"),
        ("", "crm holds no workflow and no function: mark an async function with @workflow('its.name') or @function("),
        (f"{MARKS}@workflow('w')\ndef f(ctx): ...\n", "crm.f must be an `async def` to be a workflow (crm.py:2)"),
        (f"{MARKS}@workflow('w')\nasync def f(): ...\n", "crm.f must take one argument to be a workflow: (ctx)"),
        (f"{MARKS}@workflow('w')\nasync def f(ctx, more): ...\n", "crm.f must take one argument to be a workflow: "),
        (f"{MARKS}@workflow\nasync def f(ctx): ...\n", "workflow(crm.f, version=1): needs a name, and as version"),
        (f"{MARKS}@workflow('w', version='2')\nasync def f(ctx): ...\n", "workflow('w', version='2'): needs a name"),
        (f"{MARKS}@workflow('w', version=0)\nasync def f(ctx): ...\n", "workflow('w', version=0): needs a name, and"),
        (f"{MARKS}@function\nasync def f(step): ...\n", "function(crm.f): needs a name: @function('its.name')"),
        (f"{MARKS}@function('f')\ndef f(step): ...\n", "crm.f must be an `async def` to be a function of workflows"),
        (f"{MARKS}@function('f')\nasync def f(*, a): ...\n", "crm.f must take the step as its first argument to be"),
        (LOUD, "crm.f has a decorator above @workflow, which would not run: put @workflow first"),
        (
            f"{MARKS}@workflow('w')\nasync def f(ctx): ...\n@workflow('w')\nasync def g(ctx): ...\n",
            "crm.f and crm.g are both version 1 of w",
        ),
    ],
    ids=lambda part: "" if "\n" in part else part[:40],
)
def test_what_cannot_be_a_workflow_is_said_with_its_place(check: Check, source: str, problem: str) -> None:
    code, lines = check(source)
    (said,) = [line for line in lines if line.startswith("error: WORKFLOW_PACKAGES='crm': ")]
    assert code == 1
    assert problem in said


def test_a_function_may_take_its_arguments_by_place_or_by_name(check: Check) -> None:
    sources = ("async def f(step, total): ...", "async def f(step, *, total): ...", "async def f(*every, **more): ...")
    for number, source in enumerate(sources):
        code, lines = check(f"{MARKS}# {number}\n@function('f')\n{source}\n")
        sys.modules.pop("crm")
        assert (code, lines[:1]) == (0, ["note: function f"]), lines
