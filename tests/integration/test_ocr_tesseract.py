"""Pages with known text, spoilt in known ways, read by the real Tesseract."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from PIL import Image

from ingestion_worker.ocr.engine import opened_engine
from ingestion_worker.ocr.installed import installed_tesseract
from ingestion_worker.problem import DocumentError, Problem
from ocr_harness import DATA, InThreads, done, ocr_settings, without_tesseract_on_the_path
from scans import ENGLISH, GERMAN, character_error_rate, noisy, picture, shaded, skewed
from worker_runtime.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ingestion_worker.ocr.engine import Recognised


@pytest.fixture(scope="module")
def clean() -> Image.Image:
    return picture(ENGLISH)


def smaller(page: Image.Image) -> Image.Image:
    """Return it at 200 dots per inch, which are read as well and sooner."""
    return page.resize((page.width * 2 // 3, page.height * 2 // 3), Image.Resampling.LANCZOS)


def no_breaker(dependency: str, seconds: float) -> NoReturn:
    pytest.fail(f"a program of this machine is no dependency: {dependency}")


async def read(folder: Path, page: Image.Image, language: str | None = "eng", **values: Any) -> Recognised:
    page.save(folder / "page-1.png", dpi=(300, 300))
    async with opened_engine(ocr_settings(**values), InThreads(), no_breaker) as one:
        return await one.recognise(folder, "page-1.png", 1, language)


@pytest.mark.parametrize(
    ("spoil", "most_wrong", "attempts", "rotated"),
    [
        (lambda page: page, 0.01, 1, 0),
        (lambda page: skewed(smaller(page)), 0.01, 1, 0),
        (noisy, 0.03, 1, 0),
        (shaded, 0.03, 1, 0),
        (lambda page: smaller(page).transpose(Image.Transpose.ROTATE_90), 0.01, 2, 90),
        (lambda page: smaller(page).transpose(Image.Transpose.ROTATE_180), 0.01, 2, 180),
    ],
    ids=["clean", "skewed", "noisy", "shaded", "on its side", "on its head"],
)
async def test_a_page_is_read_whatever_the_scanner_did(
    tmp_path: Path,
    clean: Image.Image,
    spoil: Callable[[Image.Image], Image.Image],
    most_wrong: float,
    attempts: int,
    rotated: int,
) -> None:
    found = await read(tmp_path, spoil(clean))

    assert character_error_rate(ENGLISH, found.text) <= most_wrong
    assert found.confidence is not None
    assert found.confidence > 0.9
    assert (len(found.attempts), found.rotated) == (attempts, rotated)


async def test_paragraphs_and_lines_stay(tmp_path: Path, clean: Image.Image) -> None:
    found = await read(tmp_path, smaller(clean))

    assert found.text.split("\n\n")[1].splitlines()[0] == ENGLISH.split("\n\n")[1].splitlines()[0]


async def test_small_print_is_enlarged(tmp_path: Path) -> None:
    found = await read(tmp_path, picture(ENGLISH, dpi=100, points=8))

    assert character_error_rate(ENGLISH, found.text) <= 0.02
    assert [attempt["enlarged"] for attempt in found.attempts] == [1, 2]


async def test_a_hundred_dots_per_inch_do(tmp_path: Path) -> None:
    assert character_error_rate(ENGLISH, (await read(tmp_path, picture(ENGLISH, dpi=100))).text) <= 0.01


async def test_german_is_read_as_german_whatever_it_is_called(tmp_path: Path) -> None:
    found = await read(tmp_path, picture(GERMAN), "de-AT")

    assert character_error_rate(GERMAN, found.text) <= 0.01
    assert "Schönwälder" in found.text
    assert found.warnings == ()


async def test_a_language_that_is_not_there_is_said_and_the_configured_one_read(tmp_path: Path) -> None:
    found = await read(tmp_path, picture(GERMAN), "fra", ocr_languages="de")

    assert "Schönwälder" in found.text
    assert found.warnings == ("Tesseract has no data for the language fra; installed: deu, eng",)


@pytest.mark.parametrize("noise", [0, 35], ids=["paper", "noise"])
async def test_a_blank_page_has_no_text_and_costs_no_run(tmp_path: Path, noise: int) -> None:
    paper = Image.new("L", (1240, 1754), 250)

    found = await read(tmp_path, noisy(paper, noise) if noise else paper)

    assert (found.text, found.confidence, found.attempts) == ("", None, ())


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (4000, 2)])
async def test_a_scrap_is_no_crash(tmp_path: Path, size: tuple[int, int]) -> None:
    assert (await read(tmp_path, Image.effect_noise(size, 90))).text == ""


async def test_a_page_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """Noise that nothing averages away holds Tesseract up for minutes."""
    with pytest.raises(DocumentError) as refused:
        await read(tmp_path, Image.effect_noise((1240, 1754), 200).resize((2480, 3508)), document_timeout_ms=1500)

    assert refused.value.problem is Problem.TIMEOUT


async def test_only_the_page_s_files_are_left(tmp_path: Path, clean: Image.Image) -> None:
    await read(tmp_path, smaller(clean).transpose(Image.Transpose.ROTATE_90), ocr_searchable_pdf=True)

    assert names_in(tmp_path) == ["page-1.json", "page-1.pdf", "page-1.png"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Leaves(InThreads):
    """Children that are in somebody else's hands, and leave what that wants."""

    def __init__(self, leave: Callable[[Path], object]) -> None:
        super().__init__()
        self.leave = leave

    async def run(self, task: str, order: Mapping[str, Any], folder: Path, **_: Any) -> dict[str, Any]:
        del task, order
        self.leave(folder / "page-1.json")
        return {"file": "../../secret"}


@pytest.mark.parametrize(
    "leave",
    [
        lambda left: left.symlink_to(left.with_name("secret")),
        lambda left: left.write_text('{"text": 5, "confidence": 1, "rotated": 0, "attempts": []}'),
        lambda left: left.write_text('{"text": "", "confidence": "all", "rotated": 0, "attempts": []}'),
        lambda left: left.write_text("[" * 100_000),
        lambda left: left.mkdir(),
        os.mkfifo,
        lambda left: os.truncate(left, 9_000_000) if left.write_text("{}") else None,
        lambda _: None,
    ],
    ids=["a link", "no text", "no number", "brackets", "a folder", "a pipe", "much", "nothing"],
)
async def test_what_a_child_leaves_is_not_trusted(tmp_path: Path, leave: Callable[[Path], object]) -> None:
    (tmp_path / "secret").write_text('{"text": "secret", "confidence": 1, "rotated": 0, "attempts": []}')

    async with opened_engine(ocr_settings(), Leaves(leave), no_breaker) as engine:
        with pytest.raises(DocumentError) as refused:
            await engine.recognise(tmp_path, "page-1.png", 1, None)

    assert refused.value.problem is Problem.CRASH


def test_a_damaged_picture_is_told(tmp_path: Path) -> None:
    (tmp_path / "page-1.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")

    with pytest.raises(DocumentError, match="CORRUPT"):
        done("recognise", {"image": "page-1.png", "page": 1, "tesseract": orders()}, tmp_path)


def orders(**values: Any) -> dict[str, Any]:
    usual = {"program": "/nowhere", "data": str(DATA), "orientation": None, "language": "eng"}
    return usual | {"least_confidence": 0.8, "most_pixels": 40_000_000, "seconds": 20.0} | values


def test_the_configured_program_wins_then_the_path_then_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = program(tmp_path / "own" / "tesseract", "tesseract 5.3.0", "eng")
    on_path = program(tmp_path / "path" / "tesseract", "tesseract v5.4.1", "eng", "osd")
    monkeypatch.setenv("PATH", f"{on_path.parent}:/usr/bin:/bin")

    assert installed_tesseract(ocr_settings(tesseract_cmd=own)).program == own
    assert installed_tesseract(ocr_settings()).program == on_path
    assert installed_tesseract(ocr_settings()).orientation == on_path.parent
    without_tesseract_on_the_path(monkeypatch)
    packaged = installed_tesseract(ocr_settings())
    assert (packaged.data, packaged.languages) == (DATA, frozenset({"eng", "deu"}))
    assert packaged.orientation is not None


@pytest.mark.parametrize(
    ("says", "languages", "values", "problem"),
    [
        ("tesseract 4.1.1", ["eng"], {}, "is Tesseract 4.1.1; install Tesseract 5"),
        ("GNU Hello 2.12", ["eng"], {}, "does not answer as Tesseract does"),
        ("tesseract 5.3.0", ["deu"], {}, "OCR_LANGUAGES=eng: Tesseract has no data for eng; installed: deu"),
        ("tesseract 5.3.0", [], {}, "installed: none"),
        ("tesseract 5.3.0", ["eng"], {"ocr_languages": "en+fr"}, "no data for fr"),
        ("tesseract 5.3.0", ["eng"], {"tesseract_cmd": "/nowhere/tesseract"}, "TESSERACT_CMD=/nowhere/tesseract"),
    ],
)
def test_a_start_without_a_tesseract_that_can_do_it_is_refused(
    tmp_path: Path, says: str, languages: list[str], values: dict[str, Any], problem: str
) -> None:
    settings = ocr_settings(**{"tesseract_cmd": program(tmp_path / "tesseract", says, *languages)} | values)

    with pytest.raises(SettingsError) as refused:
        installed_tesseract(settings)

    assert problem in str(refused.value)


def program(path: Path, says: str, *languages: str) -> Path:
    """Make a program that answers the two questions at the start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = "\\n".join([f'List of available languages in "{path.parent}" ({len(languages)}):', *languages])
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{says}"; else printf \'{shown}\\n\'; fi\n')
    path.chmod(0o755)
    return path
