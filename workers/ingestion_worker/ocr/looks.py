"""What a picture looks like before anybody reads it: blank, noisy, unevenly lit.

Why look at all: Tesseract's confidence does not tell. On a page whose lower half lies in shadow it reads the upper half
surely and never mentions the rest; a page full of sensor noise holds it up for a minute and gives nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from PIL import ImageChops, ImageFilter, ImageStat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

__all__ = ["Looks", "looks_of", "without_noise"]

# Of 256 levels of grey.
BLANK_CONTRAST = 20
BLANK_CONTRAST_OF_NOISE = 36
NOISE_LEVELS = 3.0
SHADING_LEVELS = 48
# Where noise is looked for: squares of so many pixels, in a grid.
SAMPLE, GRID = 192, 5
LIGHT_TILES = 8
PAPER = 0.9  # This share of a tile's pixels is darker than its paper, or as dark.


@dataclass(frozen=True, slots=True)
class Looks:
    """`noise` and `shading` are in levels of grey, of 256."""

    blank: bool
    noise: float
    shading: float

    @property
    def is_noisy(self) -> bool:
        """Whether there are specks everywhere, and not only where there is print."""
        return self.noise >= NOISE_LEVELS

    @property
    def is_shaded(self) -> bool:
        """Whether no single level of grey divides paper from ink."""
        return self.shading >= SHADING_LEVELS


def looks_of(picture: Image.Image) -> Looks:
    """Look at a grey picture, quickly: at a few places, and at a small copy."""
    noise = _noise(picture)
    return Looks(_is_blank(picture, noisy=noise >= NOISE_LEVELS), noise, _shading(picture))


def without_noise(picture: Image.Image) -> Image.Image:
    """Return it with each pixel as its neighbours are: fine print suffers, so this is for noisy pictures."""
    return picture.filter(ImageFilter.MedianFilter(3))


def _noise(picture: Image.Image) -> float:
    """Return how far pixels are from their neighbours in the calmest quarter of the places looked at."""
    levels = [_roughness(sample) for sample in _samples(picture)]
    return quantiles(levels, n=4)[0] if len(levels) > 1 else levels[0]


def _roughness(sample: Image.Image) -> float:
    return ImageStat.Stat(ImageChops.difference(sample, without_noise(sample))).mean[0]


def _samples(picture: Image.Image) -> Iterator[Image.Image]:
    width, height = min(SAMPLE, picture.width), min(SAMPLE, picture.height)
    for row in range(GRID):
        for column in range(GRID):
            left = (picture.width - width) * column // (GRID - 1)
            top = (picture.height - height) * row // (GRID - 1)
            yield picture.crop((left, top, left + width, top + height))


def _is_blank(picture: Image.Image, *, noisy: bool) -> bool:
    """Tell whether nothing stands out from the paper; noise is averaged away first."""
    factor = 8 if noisy else 2
    if min(picture.size) < factor:
        return True
    levels: Any = picture.reduce(factor).getextrema()
    return bool(levels[1] - levels[0] < (BLANK_CONTRAST_OF_NOISE if noisy else BLANK_CONTRAST))


def _shading(picture: Image.Image) -> float:
    """Return how much lighter paper is in one part of the picture than in another."""
    small = picture.reduce(max(1, min(picture.size) // 512))
    papers = [_paper(tile) for tile in _tiles(small)]
    return max(papers) - min(papers)


def _tiles(picture: Image.Image) -> Iterator[Image.Image]:
    wide, high = max(1, picture.width // LIGHT_TILES), max(1, picture.height // LIGHT_TILES)
    for top in range(0, picture.height - high + 1, high):
        for left in range(0, picture.width - wide + 1, wide):
            yield picture.crop((left, top, left + wide, top + high))


def _paper(tile: Image.Image) -> int:
    left = tile.width * tile.height * PAPER
    for level, count in enumerate(tile.histogram()):
        left -= count
        if left <= 0:
            return level
    return 255
