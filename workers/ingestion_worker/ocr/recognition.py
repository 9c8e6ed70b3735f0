"""All scanned pages of one document: pictures are made a few pages ahead, read in parallel, and thrown away.

A page that cannot be read does not take the others with it: it is handed over as it was, with an `ocr_reason` of
`FAILED:<code>`. Only when every page failed is the document the problem, and its last error is raised.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog

from ingestion_worker.ocr.engine import PictureTooLarge
from ingestion_worker.problem import UNLUCKY, DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from ingestion_worker.document import Page
    from ingestion_worker.ocr.engine import OcrEngine, PictureLimits, Recognised, Tasks

__all__ = ["FAILED", "PageOrder", "Summary", "recognise_pages"]

log = structlog.get_logger()

FAILED = "FAILED:"
# Pages per child that makes pictures, and pictures that there may be at once on the disk.
RANGE, AHEAD = 4, 8
# By what the limits of a second picture, in pixels and in bytes, are less than those of the first.
SMALLER = 2
# With so many pages failed and none read, the others are not tried.
HOPELESS = 10
LONGEST_SENTENCE = 300


@dataclass(frozen=True, slots=True)
class PageOrder:
    """What is the same for all pages of a document."""

    media_type: str
    dpi: int
    language: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class Summary:
    """What came of it: pages read, pages that failed by their problem's code, and warnings about the whole."""

    read: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    warnings: set[str] = field(default_factory=set)


async def recognise_pages(
    tasks: Tasks,
    engine: OcrEngine,
    folder: Path,
    pages: Sequence[Page],
    order: PageOrder,
    on_page: Callable[[Page], Awaitable[None]],
) -> Summary:
    """Read these pages; `on_page` is given each as soon as it is done, one at a time and in any order.

    Raises `DocumentError` when no page could be read, or the document cannot be opened; `EngineFailed` when the engine
    has to be waited for, after which the pages not handed over are still to be read; and what `on_page` raises. When it
    returns, raises or is cancelled, nothing of it runs any more.
    """
    work = _Work(tasks, engine, folder, order, on_page)
    failure = None
    try:
        async with asyncio.TaskGroup() as group:
            readers = min(engine.at_once, len(pages))
            group.create_task(work.make_pictures(pages, readers))
            for _ in range(readers):
                group.create_task(work.read_pictures())
    except BaseExceptionGroup as several:
        failure = first_of(several)
    if failure is not None:
        raise failure  # Outside of the handler, so that it keeps the cause it has.
    return work.summary_or_error()


class _Work:
    """What its tasks share."""

    def __init__(
        self,
        tasks: Tasks,
        engine: OcrEngine,
        folder: Path,
        order: PageOrder,
        on_page: Callable[[Page], Awaitable[None]],
    ) -> None:
        self._tasks = tasks
        self._engine = engine
        self._folder = folder
        self._order = order
        self._on_page = on_page
        self._handing_over = asyncio.Lock()
        self._room = asyncio.Semaphore(AHEAD)
        self._waiting: asyncio.Queue[Page | None] = asyncio.Queue()
        self._summary = Summary()
        self._last_error: DocumentError | None = None

    def summary_or_error(self) -> Summary:
        """Return what came of it; raise the last error when that is all that came."""
        if self._last_error is not None and not self._summary.read:
            raise self._last_error
        return self._summary

    async def make_pictures(self, pages: Sequence[Page], readers: int) -> None:
        """Make a picture of each page as there is room, and tell each of the readers when there are no more."""
        for start in range(0, len(pages), RANGE):
            some = pages[start : start + RANGE]
            for _ in some:
                await self._room.acquire()
            await self._make(some)
        for _ in range(readers):
            self._waiting.put_nowait(None)

    async def read_pictures(self) -> None:
        """Read one picture after another, until there are no more."""
        while (page := await self._waiting.get()) is not None:
            try:
                found = await self._read(page)
            except DocumentError as error:
                await self._failed(page, error)
            else:
                await self._done(page, found)

    async def _make(self, pages: Sequence[Page]) -> None:
        """Make these pictures in one child; where that breaks, in one for each, to find the page that broke it."""
        try:
            failed = await self._render(pages, self._engine.limits)
        except DocumentError as error:
            if error.problem not in UNLUCKY:
                raise
            failed = await self._one_by_one(pages)
        for page in pages:
            if error_of_page := failed.get(page.number):
                await self._failed(page, error_of_page)
            else:
                self._waiting.put_nowait(page)

    async def _one_by_one(self, pages: Sequence[Page]) -> dict[int, DocumentError]:
        failed = dict[int, DocumentError]()
        for page in pages:
            failed |= await self._make_alone(page)
        return failed

    async def _make_alone(self, page: Page) -> dict[int, DocumentError]:
        try:
            return await self._render([page], self._engine.limits)
        except DocumentError as error:
            if error.problem not in UNLUCKY:
                raise
        try:
            return await self._render([page], self._smaller)
        except DocumentError as error:
            return {page.number: error}

    async def _render(self, pages: Sequence[Page], limits: PictureLimits) -> dict[int, DocumentError]:
        """Make pictures; return the errors of the pages of which there is none."""
        order = {
            "mediaType": self._order.media_type,
            "password": self._order.password,
            "pages": [page.number for page in pages],
            "dpi": self._order.dpi,
            "maxPixels": limits.pixels,
            "maxSide": limits.side,
            "maxBytes": limits.bytes,
        }
        told = (await self._tasks.run("render", order, self._folder)).get("failed") or {}
        return {page.number: _error(told[str(page.number)]) for page in pages if str(page.number) in told}

    async def _read(self, page: Page) -> Recognised:
        """Read a page. Where its child died, or its picture was too large, once more from a smaller picture.

        Half of the pixels allowed make no difference to an ordinary page, and a huge one takes half the memory.
        """
        try:
            return await self._recognise(page)
        except PictureTooLarge:
            log.info("picture_too_large", page=page.number, engine=self._engine.name)
        except DocumentError as error:
            if error.problem not in UNLUCKY:
                raise
            log.info("page_is_read_again", page=page.number, code=error.problem, reason=error.sentence)
        if failed := await self._render([page], self._smaller):
            raise failed[page.number]
        try:
            return await self._recognise(page)
        except PictureTooLarge as error:
            raise DocumentError(Problem.TOO_LARGE, f"{self._engine.name} finds the picture too large") from error

    async def _recognise(self, page: Page) -> Recognised:
        return await self._engine.recognise(self._folder, self._picture(page), page.number, self._order.language)

    @property
    def _smaller(self) -> PictureLimits:
        limits = self._engine.limits
        return replace(limits, pixels=limits.pixels // SMALLER, bytes=limits.bytes and limits.bytes // SMALLER)

    def _picture(self, page: Page) -> str:
        return f"page-{page.number}.{'jpg' if self._engine.limits.bytes else 'png'}"

    async def _done(self, page: Page, found: Recognised) -> None:
        self._summary.read += 1
        self._summary.warnings.update(found.warnings)
        if found.text:
            page = replace(page, text=found.text, origin="ocr", confidence=found.confidence)
        elif not page.text:
            page = replace(page, origin="none", confidence=None)
        await self._hand_over(page)

    async def _failed(self, page: Page, error: DocumentError) -> None:
        self._last_error = error
        self._summary.failed[error.problem] = self._summary.failed.get(error.problem, 0) + 1
        log.warning("page_not_recognised", page=page.number, code=error.problem, reason=error.sentence)
        if not self._summary.read and sum(self._summary.failed.values()) >= HOPELESS:
            raise error
        await self._hand_over(replace(page, ocr_reason=f"{FAILED}{error.problem}"))

    async def _hand_over(self, page: Page) -> None:
        async with self._handing_over:
            await self._on_page(page)
        self._throw_away(page.number)
        self._room.release()

    def _throw_away(self, number: int) -> None:
        """Remove the picture and what a child that died left beside it; a PDF of the page stays."""
        for path in self._folder.glob(f"page-{number}.*"):
            if path.name != f"page-{number}.pdf":
                # Where it cannot be removed it goes with the folder.
                with suppress(OSError):
                    path.unlink()


def _error(told: Any) -> DocumentError:
    """Read why there is no picture of a page, as the child told it."""
    try:
        return DocumentError(Problem(told["problem"]), str(told["sentence"])[:LONGEST_SENTENCE])
    except (TypeError, KeyError, ValueError):
        return DocumentError(Problem.CRASH, "the process that made the picture told nothing readable")


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the exception that ended a group of tasks: the others were cancelled for it."""
    first = group.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
