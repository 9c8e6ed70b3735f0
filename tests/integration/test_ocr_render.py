"""Pictures of pages: of PDFs, and of every kind of picture file; and of those that were made to do harm."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageCms, ImageStat

from ingestion_worker.problem import DocumentError, Problem
from ocr_harness import done
from scans import A4, ENGLISH, pdf, picture

if TYPE_CHECKING:
    from pathlib import Path

PDF = "application/pdf"


def render(folder: Path, source: bytes | None = None, media_type: str = PDF, **order: Any) -> dict[str, Any]:
    if source is not None:
        (folder / "source").write_bytes(source)
    usual = {"mediaType": media_type, "password": None, "pages": [1], "dpi": 100, "maxPixels": 40_000_000}
    return done("render", usual | order, folder)


def shown(folder: Path, page: int = 1) -> Image.Image:
    with Image.open(folder / f"page-{page}.png") as image:
        assert image.mode == "L"
        image.load()
        return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def two_tone(mode: str = "L", size: tuple[int, int] = (400, 300)) -> Image.Image:
    """Return a picture whose left half is dark and whose right half is light."""
    image = Image.new("L", size, 230)
    image.paste(20, (0, 0, size[0] // 2, size[1]))
    return image.convert(mode)


def assert_two_tone(image: Image.Image, *, tolerance: int = 30) -> None:
    left = ImageStat.Stat(image.crop((0, 0, image.width // 2 - 4, image.height))).mean[0]
    right = ImageStat.Stat(image.crop((image.width // 2 + 4, 0, image.width, image.height))).mean[0]
    assert left == pytest.approx(20, abs=tolerance)
    assert right == pytest.approx(230, abs=tolerance)


def test_pages_of_a_pdf_are_as_large_as_was_asked(tmp_path: Path) -> None:
    result = render(tmp_path, pdf("one", "two", "three"), pages=[3, 1], dpi=144)

    assert result["failed"] == {}
    size = {"width": A4[0] * 2, "height": A4[1] * 2, "dpi": 144}
    assert result["pages"] == {"3": {"file": "page-3.png"} | size, "1": {"file": "page-1.png"} | size}
    assert shown(tmp_path, 3).size == (A4[0] * 2, A4[1] * 2)
    assert shown(tmp_path).info.get("dpi") is None


def test_a_page_that_is_not_there_fails_alone(tmp_path: Path) -> None:
    result = render(tmp_path, pdf("one"), pages=[1, 2])

    assert list(result["pages"]) == ["1"]
    assert result["failed"] == {"2": {"problem": "CORRUPT", "sentence": "there is no page 2"}}


def test_a_large_page_gets_fewer_dots_and_a_huge_one_none(tmp_path: Path) -> None:
    poster, wall = pdf("A0", box=(2384, 3370)), pdf("huge", box=(14400, 14400))

    (page,) = render(tmp_path, poster, dpi=300)["pages"].values()
    assert 150 < page["dpi"] < 165
    assert page["width"] * page["height"] <= 40_000_000

    assert render(tmp_path, wall, dpi=300)["failed"]["1"]["problem"] == "TOO_LARGE"


@pytest.mark.parametrize("box", [(0, 0), (0.0001, 100_000_000), (1e30, 1e30)])
def test_a_page_of_no_size_is_told(tmp_path: Path, box: tuple[float, float]) -> None:
    result = render(tmp_path, pdf("odd", box=box))

    assert all(failure["problem"] in {"CORRUPT", "TOO_LARGE"} for failure in result["failed"].values())
    assert all(page["width"] * page["height"] <= 40_000_000 for page in result["pages"].values())


@pytest.mark.parametrize("source", [b"", b"%PDF-1.7 and nothing more", pdf("x")[:200]])
def test_a_damaged_pdf_is_corrupt(tmp_path: Path, source: bytes) -> None:
    with pytest.raises(DocumentError) as refused:
        render(tmp_path, source)

    assert refused.value.problem is Problem.CORRUPT


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "L", {}),
        ("PNG", "1", {}),
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("PNG", "LA", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "I;16", {}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "CMYK", {}),
        ("TIFF", "I;16", {}),
        ("TIFF", "F", {}),
        ("TIFF", "LAB", {}),
        ("JPEG", "L", {}),
        ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {}),
        ("JPEG2000", "RGB", {}),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {}),
        ("BMP", "RGB", {}),
        ("PPM", "RGB", {}),
    ],
)
def test_every_kind_of_picture_becomes_grey(tmp_path: Path, kind: str, mode: str, options: dict[str, Any]) -> None:
    source = encoded(wide(mode) if mode in {"I;16", "F"} else in_mode(mode), kind, **options)

    result = render(tmp_path, source, "image/x")

    assert result["pages"]["1"]["dpi"] is None
    assert_two_tone(shown(tmp_path))


def wide(mode: str) -> Image.Image:
    """Return a picture of more than 8 bits; its lightest is no more than what becomes white."""
    levels = two_tone().convert("F").point(lambda level: level * 257 * 255 / 230)
    return levels if mode == "F" else levels.convert("I").convert("I;16")


def in_mode(mode: str) -> Image.Image:
    if mode != "LAB":
        return two_tone("RGB").convert(mode, dither=Image.Dither.NONE) if mode != "1" else two_tone().convert("1")
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    found = ImageCms.profileToProfile(two_tone("RGB"), srgb, lab, outputMode="LAB")
    assert found
    return found


def test_what_shines_through_is_paper(tmp_path: Path) -> None:
    image = Image.new("RGBA", (400, 300), (0, 0, 0, 0))
    image.paste((20, 20, 20, 255), (0, 0, 200, 300))

    render(tmp_path, encoded(image, "PNG"), "image/png")

    assert_two_tone(shown(tmp_path))


def test_pages_of_a_tiff_are_told_apart(tmp_path: Path) -> None:
    pages = [Image.new("L", (100 + 10 * number, 80), 200) for number in range(3)]
    source = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])

    result = render(tmp_path, source, "image/tiff", pages=[1, 3, 4])

    assert [page["width"] for page in result["pages"].values()] == [100, 120]
    assert result["failed"] == {"4": {"problem": "CORRUPT", "sentence": "there is no page 4"}}


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photo_stands_as_the_camera_was_held(tmp_path: Path, orientation: int) -> None:
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation

    render(tmp_path, encoded(two_tone().transpose(turned[orientation]), "JPEG", exif=exif), "image/jpeg")

    assert shown(tmp_path).size == (400, 300)
    assert_two_tone(shown(tmp_path))


def test_a_picture_is_brought_down_to_what_is_allowed(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG"):
        result = render(tmp_path, encoded(two_tone(size=(2000, 1500)), kind), "image/x", maxPixels=1_000_000)

        assert result["pages"]["1"]["width"] * result["pages"]["1"]["height"] <= 1_000_000
        assert_two_tone(shown(tmp_path))


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("size", "problem"),
    [((50_000, 50_000), Problem.BOMB), ((2**31 - 1, 2), Problem.BOMB), ((12_000, 12_000), "TOO_LARGE")],
)
def test_a_bomb_is_told_by_its_header(tmp_path: Path, size: tuple[int, int], problem: str) -> None:
    before = Image.MAX_IMAGE_PIXELS

    result = render(tmp_path, png_that_claims(*size), "image/png")

    assert result["failed"]["1"]["problem"] == problem
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_torn_picture_is_corrupt_and_its_neighbours_are_not(tmp_path: Path) -> None:
    jpeg = encoded(picture(ENGLISH, dpi=60), "JPEG")

    assert render(tmp_path, jpeg[: len(jpeg) // 2], "image/jpeg")["failed"]["1"]["problem"] == "CORRUPT"


@pytest.mark.parametrize("source", [b"", b"no picture", b"GIF89a", b"<svg/>"])
def test_what_is_no_picture_is_refused(tmp_path: Path, source: bytes) -> None:
    with pytest.raises(DocumentError) as refused:
        render(tmp_path, source, "image/x")

    assert refused.value.problem in {Problem.UNSUPPORTED, Problem.CORRUPT}


def test_for_a_service_pictures_are_small_files(tmp_path: Path) -> None:
    noise = encoded(Image.effect_noise((1500, 2000), 90), "PNG")

    result = render(tmp_path, noise, "image/png", maxBytes=300_000, maxSide=1_900)

    page = result["pages"]["1"]
    assert page["file"] == "page-1.jpg"
    assert max(page["width"], page["height"]) <= 1_900
    assert (tmp_path / "page-1.jpg").stat().st_size <= 300_000


def test_a_password_opens_a_pdf(tmp_path: Path) -> None:
    locked = pdf("behind a lock", password="open sesame")
    for password, told in ((None, "it needs a password"), ("wrong", "the password is wrong")):
        with pytest.raises(DocumentError, match=told) as refused:
            render(tmp_path, locked, password=password)
        assert refused.value.problem is Problem.ENCRYPTED

    assert list(render(tmp_path, locked, password="open sesame")["pages"]) == ["1"]
    assert ImageStat.Stat(shown(tmp_path)).extrema[0][0] < 128
