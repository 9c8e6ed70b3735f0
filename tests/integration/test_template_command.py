"""`intelliflow template`: what there is and what it makes of data."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from worker_ops.__main__ import run
from worker_ops.exit_codes import ExitCode

if TYPE_CHECKING:
    from pathlib import Path


class Terminal:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.set = monkeypatch.setenv
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def types(self, text: str) -> None:
        self._monkeypatch.setattr("sys.stdin", io.StringIO(text))

    def run(self, *arguments: str) -> tuple[ExitCode, str, str]:
        code = run(["template", *arguments])
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written = tmp_path / "ours"
    written.mkdir()
    for part, text in {"subject": "Hello {{ name }}", "txt": "Dear {{ name }}"}.items():
        (written / f"hello.{part}.j2").write_text(text, encoding="utf-8")
    return written


def listed(terminal: Terminal, *arguments: str) -> dict[str, Any]:
    code, out, _ = terminal.run("list", "-o", "json", *arguments)
    assert code is ExitCode.OK
    return {row.pop("name"): row for row in json.loads(out)}


def test_templates_are_listed_with_where_they_come_from(terminal: Terminal, folder: Path) -> None:
    assert listed(terminal)["lead-welcome"] == {"from": "shipped", "html": True}
    assert listed(terminal, "--folder", str(folder))["hello"] == {"from": str(folder), "html": False}
    terminal.set("TEMPLATES_DIR", str(folder))
    assert set(listed(terminal)) == {"hello", "lead-assigned", "lead-converted", "lead-welcome"}


def test_data_comes_from_a_file_or_is_typed(terminal: Terminal, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"name": "<Ada>"}', encoding="utf-8")
    terminal.types('{"name": "Eve"}')

    where = ("preview", "hello", "--folder", str(folder), "--data")
    assert terminal.run(*where, str(tmp_path / "data.json"))[1] == "Subject: Hello <Ada>\n\nDear <Ada>\n"
    assert json.loads(terminal.run(*where, "-", "-o", "json")[1]) == {
        "subject": "Hello Eve",
        "text": "Dear Eve",
        "html": None,
    }


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("preview", "nope"), ExitCode.NOT_FOUND, "there is no template 'nope'; there are lead-assigned"),
        (("preview", "lead-assigned"), ExitCode.FAILED, "'leadId' is undefined"),
        (("preview", "lead-welcome", "--data", "/nowhere.json"), ExitCode.NOT_FOUND, "there is no file /nowhere.json"),
        (("preview", "lead-welcome", "--data", "-"), ExitCode.FAILED, "must be a JSON object"),
        (("list", "--folder", "/nowhere"), ExitCode.NOT_FOUND, "there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_shown_says_why(
    terminal: Terminal, arguments: tuple[str, ...], code: ExitCode, said: str
) -> None:
    terminal.types("[]")
    ended, out, err = terminal.run(*arguments)

    assert (ended, out) == (code, "")
    assert said in err


def test_a_template_without_html_says_so(terminal: Terminal, folder: Path) -> None:
    terminal.types('{"name": "Eve"}')
    code, _, err = terminal.run("preview", "hello", "--folder", str(folder), "--data", "-", "-o", "html")

    assert (code, "no HTML" in err) == (ExitCode.NOT_FOUND, True)


def test_all_mistakes_of_a_folder_are_told(terminal: Terminal, folder: Path) -> None:
    (folder / "hello.html.j2").write_text("{% if %}", encoding="utf-8")
    (folder / "alone.txt.j2").write_text("{{ x | shout }}", encoding="utf-8")
    code, _, err = terminal.run("list", "--folder", str(folder))

    assert code is ExitCode.FAILED
    assert [line.partition(" ")[2].split(":")[0] for line in err.splitlines()] == [
        "alone.txt.j2",
        "alone.txt.j2",
        "hello.html.j2",
    ]
    terminal.set("TEMPLATES_DIR", str(folder))
    code, _, err = terminal.run("list")
    assert code is ExitCode.FAILED
    assert "TEMPLATES_DIR" in err
    assert "hello.html.j2:1" in err
    assert "alone.txt.j2:1" in err
