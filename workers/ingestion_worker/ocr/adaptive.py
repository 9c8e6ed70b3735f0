"""One picture, read by Tesseract in one way after another until it is read well enough, or time is short.

Runs in the child. The first way follows from what the picture looks like; most pages need no second one.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from ingestion_worker.ocr.lean_pytesseract import pytesseract
from ingestion_worker.ocr.looks import looks_of, without_noise
from ingestion_worker.ocr.tsv import Reading, reading
from ingestion_worker.problem import DocumentError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Attempt", "Bench", "Orders", "Way", "read_adaptively"]

# Tesseract's `thresholding_method`s: one level for the page (Otsu), or one for each neighbourhood (Sauvola).
ONE_LEVEL, LOCAL_LEVELS = 0, 2
# Letters lower than this have no shape. Where little was read their height is not known, but the picture's size is:
# a page of letters with fewer pixels than at 180 dots per inch.
SMALL_PRINT_PIXELS, SMALL_PICTURE_PIXELS = 20, 3_000_000
ENLARGEMENT = 2
# Tesseract's own measure of an orientation; below it, it guesses.
LEAST_CERTAINTY = 1.0
# Shares of the time for all runs: what one may take, and when no other begins.
LONGEST_RUN, LATE = 0.5, 0.75
TURNS = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}


@dataclass(frozen=True, slots=True)
class Way:
    """How a picture is read: turned clockwise by so many degrees, enlarged, and split into paper and ink."""

    turned: int = 0
    enlarged: int = 1
    threshold: int = ONE_LEVEL


@dataclass(frozen=True, slots=True)
class Attempt:
    """A way, what it gave, and how long it took. `broken`: it ended too late, or badly."""

    way: Way
    reading: Reading
    seconds: float
    broken: bool = False

    def shown(self) -> dict[str, Any]:
        """Return what is recorded of it."""
        confidence = self.reading.confidence
        return {
            "turned": self.way.turned,
            "enlarged": self.way.enlarged,
            "threshold": "local" if self.way.threshold == LOCAL_LEVELS else "global",
            "words": self.reading.words,
            "confidence": None if confidence is None else round(confidence, 4),
            "seconds": round(self.seconds, 2),
            **({"broken": True} if self.broken else {}),
        }


@dataclass(frozen=True, slots=True)
class Orders:
    """Tesseract, as it was found, and what is asked of it. `seconds` is for all runs on one page together."""

    program: str
    data: str
    orientation: str | None
    language: str
    least_confidence: float
    most_pixels: int
    seconds: float
    pdf: bool = False


class Bench:
    """Where one picture is read; every file that appears is called after `stem`."""

    def __init__(self, picture: Image.Image, folder: Path, stem: str, orders: Orders) -> None:
        self._began = time.monotonic()
        self.orders = orders
        self.attempts: list[Attempt] = []
        self.looks = looks_of(picture)
        self._picture = without_noise(picture) if self.looks.is_noisy and not self.looks.blank else picture
        self._folder = folder
        self._stem = stem

    @property
    def best(self) -> Attempt:
        """The attempt that is worth most."""
        return max(self.attempts, key=lambda attempt: attempt.reading.worth)

    @property
    def is_finished(self) -> bool:
        """Whether it is read well enough, or no time is left to read it better."""
        return (self.best.reading.confidence or 0.0) >= self.orders.least_confidence or (
            self._elapsed() > LATE * self.orders.seconds
        )

    def read(self, way: Way) -> None:
        """Read it in this way. Raises `DocumentError` when Tesseract breaks."""
        started = time.monotonic()
        base = self._base(len(self.attempts))
        wanted = "-c tessedit_create_tsv=1" + (" -c tessedit_create_pdf=1" if self.orders.pdf else "")
        config = f"--psm 3 -c thresholding_method={way.threshold} {wanted}"
        answered = self._run(way, base, "tsv", self.orders.language, self.orders.data, config)
        table = base.with_name(f"{base.name}.tsv")
        found = reading(table.read_text("utf-8")) if answered and table.exists() else Reading()
        table.unlink(missing_ok=True)
        self.attempts.append(Attempt(way, found, time.monotonic() - started, broken=answered is None))

    def orientation(self, way: Way) -> int:
        """Return by how many degrees the picture, read in that way, must be turned clockwise to be upright."""
        if self.orders.orientation is None:
            return 0
        base = self._folder / f"{self._stem}.orientation"
        config = f"--psm 0 -c thresholding_method={way.threshold}"
        answered = self._run(way, base, "osd", "osd", self.orders.orientation, config)
        file = base.with_name(f"{base.name}.osd")
        told = pytesseract.osd_to_dict(file.read_text("utf-8")) if answered and file.exists() else {}
        file.unlink(missing_ok=True)
        return int(told.get("rotate", 0)) if told.get("orientation_conf", 0.0) >= LEAST_CERTAINTY else 0

    @property
    def pixels(self) -> int:
        """How many the picture has."""
        return self._picture.width * self._picture.height

    def keep_pdf(self) -> bool:
        """Leave the best attempt's PDF behind, as `<stem>.pdf`, and no other; return whether there is one."""
        best = self.attempts.index(self.best)
        for number in range(len(self.attempts)):
            made = self._base(number).with_name(f"{self._base(number).name}.pdf")
            if number == best and made.exists():
                made.replace(self._folder / f"{self._stem}.pdf")
            made.unlink(missing_ok=True)
        return (self._folder / f"{self._stem}.pdf").exists()

    def _run(self, way: Way, base: Path, extension: str, language: str, data: str, config: str) -> bool | None:
        """Run Tesseract; false: it could make nothing of the picture; none: it ended too late, or badly.

        Raises `DocumentError` where that is all there is: what was read before is better than nothing.
        """
        try:
            return self._run_once(way, base, extension, language, data, config)
        except (DocumentError, MemoryError):
            if not self.attempts:
                raise
            return None

    def _run_once(self, way: Way, base: Path, extension: str, language: str, data: str, config: str) -> bool | None:
        picture = self._laid_out(way)
        try:
            pytesseract.run_tesseract(
                str(picture),
                str(base),
                extension,
                language,
                config=f"--tessdata-dir {shlex.quote(data)} {config}",
                timeout=self._seconds_for_a_run(),
            )
        except pytesseract.TesseractError as error:
            raise_if_broken(error)
            return False
        except RuntimeError:  # What pytesseract raises for a run that it stopped.
            return None
        finally:
            picture.unlink()
        return True

    def _laid_out(self, way: Way) -> Path:
        """Write the picture as it is to be read, and not how large it is on paper.

        Told more dots per inch than there are, Tesseract leaves out most of a page, and is sure of the rest; told
        nothing, it goes by the letters.
        """
        picture = self._picture.transpose(TURNS[way.turned]) if way.turned else self._picture
        if way.enlarged > 1:
            size = (picture.width * way.enlarged, picture.height * way.enlarged)
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        path = self._folder / f"{self._stem}.laid-out.png"
        picture.info = {}
        picture.save(path, compress_level=1)
        return path

    def _base(self, attempt: int) -> Path:
        return self._folder / f"{self._stem}.{attempt}"

    def _seconds_for_a_run(self) -> float:
        return max(1.0, min(LONGEST_RUN * self.orders.seconds, self.orders.seconds - self._elapsed()))

    def _elapsed(self) -> float:
        return time.monotonic() - self._began


def read_adaptively(bench: Bench) -> None:
    """Read the picture until that went well: `bench.attempts` tells how."""
    pytesseract.tesseract_cmd = bench.orders.program
    bench.read(Way(threshold=LOCAL_LEVELS if bench.looks.is_shaded else ONE_LEVEL))
    for other in REMEDIES:
        if bench.is_finished:
            break
        if (way := other(bench)) not in {attempt.way for attempt in bench.attempts}:
            bench.read(way)


def larger(bench: Bench) -> Way:
    """Small print, as long as what is then read has no more pixels than allowed."""
    best = bench.best
    is_small = best.reading.height < SMALL_PRINT_PIXELS or bench.pixels < SMALL_PICTURE_PIXELS
    may_be = bench.pixels * ENLARGEMENT**2 <= bench.orders.most_pixels
    return replace(best.way, enlarged=ENLARGEMENT) if is_small and may_be else best.way


def upright(bench: Bench) -> Way:
    """A page that lies on its side, or on its head."""
    best = bench.best.way
    return replace(best, turned=(best.turned + bench.orientation(best)) % 360)


def split_otherwise(bench: Bench) -> Way:
    """Print on a ground that looks alike to one threshold."""
    best = bench.best.way
    return replace(best, threshold=ONE_LEVEL if best.threshold == LOCAL_LEVELS else LOCAL_LEVELS)


REMEDIES: tuple[Callable[[Bench], Way], ...] = (larger, upright, split_otherwise)


def raise_if_broken(error: pytesseract.TesseractError) -> None:
    """Raise `DocumentError` unless Tesseract only said that it can make nothing of a picture."""
    status, message = error.status, str(error.message)
    if "alloc" in message.lower() or status == -9:  # noqa: PLR2004  SIGKILL: nobody but the kernel sends it
        raise DocumentError(Problem.OOM, "Tesseract had not enough memory for the page") from error
    if status < 0:
        raise DocumentError(Problem.CRASH, f"Tesseract ended by signal {-status}") from error
    if "traineddata" in message or "tessdata" in message:
        raise DocumentError(Problem.CRASH, "Tesseract's data is gone or broken: install it again") from error
