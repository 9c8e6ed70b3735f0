from __future__ import annotations

import pytest

from ingestion_worker.settings import IngestionSettings
from worker_runtime.settings import SettingsError, load, warnings_about

GOOGLE = {"ENABLE_OCR": "true", "OCR_ENGINE": "google-vision", "GOOGLE_VISION_API_KEY": "hush-key"}
AWS = {
    "ENABLE_OCR": "true",
    "OCR_ENGINE": "aws-textract",
    "AWS_ACCESS_KEY_ID": "AKID",
    "AWS_SECRET_ACCESS_KEY": "hush-secret",
    "AWS_REGION": "eu-central-1",
}


def loaded(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> IngestionSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load(IngestionSettings)


def test_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = loaded(monkeypatch, {})

    assert (defaults.enable_ocr, defaults.ocr_engine, defaults.ocr_languages) == (False, "tesseract", "eng")
    assert (defaults.ocr_dpi, defaults.ocr_max_pixels, defaults.ocr_min_confidence) == (300, 40_000_000, 0.8)
    assert defaults.ocr_searchable_pdf is False


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"OCR_ENGINE": "abbyy"}, "OCR_ENGINE='abbyy' is none of the choices"),
        ({"OCR_LANGUAGES": "eng; rm"}, "languages joined by +"),
        ({"OCR_DPI": "20"}, "OCR_DPI"),
        ({"OCR_MIN_CONFIDENCE": "80"}, "OCR_MIN_CONFIDENCE"),
        ({"AWS_REGION": "evil.example.com/"}, "a region such as eu-central-1"),
        (GOOGLE | {"GOOGLE_VISION_API_KEY": ""}, "GOOGLE_VISION_API_KEY is not set, and OCR_ENGINE=google-vision"),
        (AWS | {"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY is not set, and OCR_ENGINE=aws-textract"),
        (GOOGLE | {"OCR_SEARCHABLE_PDF": "true"}, "OCR_SEARCHABLE_PDF=true and OCR_ENGINE=google-vision"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problem: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        loaded(monkeypatch, variables)

    assert problem in str(refused.value)
    assert "hush" not in str(refused.value)


def test_while_ocr_is_off_an_engine_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, {"OCR_ENGINE": "google-vision"}).ocr_engine == "google-vision"


def test_textract_is_where_its_region_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, AWS).textract_url == "https://textract.eu-central-1.amazonaws.com"

    elsewhere = loaded(monkeypatch, {"AWS_ENDPOINT_URL_TEXTRACT": "http://proxy.example:8080"})

    assert elsewhere.textract_url == "http://proxy.example:8080"
    assert "AWS_ENDPOINT_URL_TEXTRACT is http: every scanned page crosses the network unencrypted" in warnings_about(
        elsewhere
    )


def test_nothing_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hush" not in str(loaded(monkeypatch, AWS | GOOGLE).public())
