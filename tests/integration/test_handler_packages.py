"""Where handlers in Python are found, and what `events-worker check` says about those that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from events_worker.settings import EventsSettings
from worker_runtime import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ON = "from events_worker.handlers import on\n"
GOOD = f"{ON}@on('lead.created')\nasync def good(event, context): ...\n"

TRACING = """
def traced(function):
    async def inner(event, context):
        return await function(event, context)
    return inner
"""
LOUD = """
import functools
from events_worker.handlers import on

def loud(function):
    @functools.wraps(function)
    async def inner(*arguments):
        return await function(*arguments)
    return inner

@loud
@on("*")
async def f(event, context): ...
"""
RULES = """
rules:
  - {name: boss, event: deal.won, channel: EMAIL, recipient: {email: payload.boss}, subject: a, body: b}
  - {name: all, event: case.*, channel: EMAIL, recipient: {email: payload.boss}, subject: a, body: b}
"""


@dataclass(frozen=True)
class Checked:
    """What `events-worker check` said of a folder's packages."""

    code: int
    lines: list[str]

    @property
    def problem(self) -> str:
        """What is wrong with EVENT_HANDLERS, without what is allowed."""
        assert self.code == 1, self.lines
        (line,) = [line for line in self.lines if line.startswith("error: EVENT_HANDLERS")]
        return line.partition("': ")[2].removesuffix("; allowed: packages with handlers")

    def said(self, kind: str) -> list[str]:
        return [line.removeprefix(f"{kind}: ") for line in self.lines if line.startswith(f"{kind}: ")]


Check = Callable[..., Checked]
VARIABLES = {"DATABASE_URL": "postgresql://h/d", "EVENT_HANDLERS": "crm"}


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Check]:
    """Do what the command does, without a process for each question, in a folder with these files."""
    before = set(sys.modules)

    def run(files: Mapping[str, str], handlers: str = "crm", **environment: str) -> Checked:
        write(tmp_path, files)
        monkeypatch.syspath_prepend(tmp_path)
        for name, value in {**VARIABLES, "EVENT_HANDLERS": handlers, **environment}.items():
            monkeypatch.setenv(name, value)
        return Checked(command_line.check(EventsSettings), capsys.readouterr().out.splitlines())

    yield run
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_the_command_says_it_and_its_exit_code_too(tmp_path: Path) -> None:
    write(tmp_path, {"crm.py": GOOD, "wrong.py": "def f(:"})
    command = [str(Path(sys.executable).with_name("events-worker")), "check"]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(tmp_path), **VARIABLES}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    note = "note: handler good (crm.good): lead.created, within 30 s"
    assert (done.returncode, done.stdout.splitlines()) == (0, [note, "configuration is valid"])
    done = subprocess.run(
        command, env={**environment, "EVENT_HANDLERS": "wrong"}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout == (
        "error: EVENT_HANDLERS='wrong': wrong cannot be imported: SyntaxError: invalid syntax (wrong.py, line 1);"
        " allowed: packages with handlers\n"
    )


def test_handlers_are_found_in_every_module_and_told(check: Check) -> None:
    files = {
        "tracing.py": TRACING,
        "other/__init__.py": GOOD.replace("good", "others"),
        "crm/__init__.py": "from crm.deep.leads import good\nfrom other import others\n",
        "crm/__main__.py": "raise SystemExit('this is no part of the package')\n",
        "crm/deep/__init__.py": "",
        "crm/deep/leads.py": GOOD + "again = good\n"
        "class Lazy:\n @property\n def __event_handler__(self): raise RuntimeError('not now')\n"
        "lazy = Lazy()\n"
        "from tracing import traced\n"
        "@on('lead.*', name='decorated', timeout_seconds=5)\n@traced\nasync def inner(event, context): ...\n",
    }
    checked = check(files)
    assert checked.code == 0
    assert sorted(checked.said("note")) == [
        "handler decorated (tracing.traced.<locals>.inner): lead.*, within 5 s",
        "handler good (crm.deep.leads.good): lead.created, within 30 s",
    ]
    assert checked.said("warning") == []
    assert checked.lines[-1] == "configuration is valid"


def test_several_packages_and_entry_points_are_named_with_commas(check: Check) -> None:
    point = {
        "crm_sales-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: crm-sales\nVersion: 1.0\n",
        "crm_sales-1.0.dist-info/entry_points.txt": "[intelliflow.event_handlers]\nsales = crm_sales.handlers:first\n",
        "crm_sales/__init__.py": "",
        "crm_sales/handlers.py": GOOD.replace("good", "first"),
    }
    single = {"single.py": GOOD.replace("good", "second")}
    checked = check(point | single, " sales, single,")
    assert [note.split()[1] for note in checked.said("note")] == ["first", "second"]
    nobody = check({}, "sails")
    assert nobody.problem == (
        "sails is neither a package that Python finds nor one of the installed entry points (sales): "
        "install it, or put the folder that holds it on PYTHONPATH"
    )


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "import nowhere.at_all\n",
            "crm cannot be imported: ModuleNotFoundError: No module named 'nowhere' (crm.py:1)",
        ),
        ("import os\nos.environ['CRM_KEY']\n", "crm cannot be imported: KeyError: 'CRM_KEY' (crm.py:2)"),
        ("def f(:\n", "crm cannot be imported: SyntaxError: invalid syntax (crm.py, line 1)"),
        ("raise SystemExit('no')\n", "crm cannot be imported: SystemExit: no (crm.py:1)"),
        ("async def f(event, context): ...\n", "crm holds no handler: mark an async function with @on('lead.created')"),
        (f"{ON}@on('lead.created')\ndef f(event, context): ...\n", "crm.f must be an `async def` to be a handler"),
        (f"{ON}@on('lead.created')\nasync def f(event): ...\n", "crm.f must take two arguments"),
        (f"{ON}@on('lead.created')\nasync def f(event, context, db): ...\n", "crm.f must take two arguments"),
        (f"{ON}@on('lead.created')\nclass F: ...\n", "crm.F must be an `async def` to be a handler"),
        (f"{ON}class A:\n @on('*')\n async def f(self, event): ...\n", "crm.A.f is a method: a handler is a function"),
        (f"{ON}@on('lead.*')\n{GOOD.removeprefix(ON)}", "crm.good has @on twice: write a second function"),
        (f"{ON}@on('lead created')\nasync def f(event, context): ...\n", "on('lead created'): name the events"),
        (f"{ON}@on('lead.created, lead.updated')\nasync def f(e, c): ...\n", "on('lead.created, lead.updated'): name"),
        (f"{ON}@on('*.created')\nasync def f(event, context): ...\n", "on('*.created'): name the events to handle"),
        (f"{ON}@on('')\nasync def f(event, context): ...\n", "on(''): name the events to handle: 'lead.created',"),
        (f"{ON}@on('*', timeout_seconds=61)\nasync def f(e, c): ...\n", "timeout_seconds=61 must be above 0 and at"),
        (LOUD, "crm.f has a decorator above @on, which would not run: put @on first"),
        (GOOD.replace("good", "routing"), "crm.routing: routing is the rules' own name: give it another by name="),
        (GOOD.replace("good", "workflows"), "crm.workflows: workflows is the workflows' own name: give it another by"),
        ("", "crm holds no handler"),
    ],
    ids=lambda part: "" if "\n" in part else part[:40],
)
def test_what_cannot_be_a_handler_is_said_with_its_place(check: Check, source: str, problem: str) -> None:
    said = check({"crm.py": source}).problem
    assert problem in said
    assert "cannot be imported" not in said or "crm.py" in said


def test_two_handlers_of_one_name_are_both_named(check: Check) -> None:
    said = check({"crm/__init__.py": "", "crm/a.py": GOOD, "crm/b.py": GOOD}).problem
    assert said == (
        "crm.a.good and crm.b.good are both named good, and receipts go by names: give one of them another by name="
    )
    assert check({}, "crm.a,crm.a").code == 0
    assert check({}, ".a").problem.startswith(".a cannot be imported: TypeError")


@pytest.mark.parametrize(
    ("pattern", "suggestion"),
    [
        ("leed.created", "; did you mean lead.created?"),
        ("LeadCreated", "; did you mean lead.created?"),
        ("leads.*", "; did you mean lead.*?"),
        ("lead", "; did you mean lead.*?"),
        ("xyz.*", ""),
        *[(known, None) for known in ("lead.created", "lead.*", "*", "deal.won", "deal.*", "case.*", "case.closed")],
    ],
)
def test_events_that_nobody_knows_earn_a_warning(
    check: Check, tmp_path: Path, pattern: str, suggestion: str | None
) -> None:
    files = {"crm.py": GOOD.replace("lead.created", pattern), "rules.yaml": RULES}
    checked = check(files, EVENT_RULES_FILE=str(tmp_path / "rules.yaml"))
    assert checked.code == 0
    # The rules are warned about by themselves: two of them speak of events without a contract.
    warnings = [warning for warning in checked.said("warning") if warning.startswith("EVENT_HANDLERS")]
    if suggestion is None:
        assert warnings == []
    else:
        assert warnings == [
            f"EVENT_HANDLERS: good is for {pattern}, of which there is neither a contract nor a rule{suggestion}"
        ]
