"""The jobs of the three queues, as producers write them: camelCase JSON. Unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints
from pydantic.alias_generators import to_camel

__all__ = ["ContentRead", "EmbeddingGeneration", "ExtractionOptions", "OcrProcessing", "TextExtraction"]

MOST_PAGES = 100_000

Id = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=8192)]
# `eng`, `deu+eng`, `de`, `de-AT`: what a language may be called differs between producers.
Language = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}([-_+][A-Za-z]{2,8})*$", max_length=64)]
PageNumber = Annotated[int, Field(ge=1, le=MOST_PAGES)]
OcrMode = Literal["auto", "always", "never"]


class _Job(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, hide_input_in_errors=True)


class ExtractionOptions(_Job):
    """What beside reading is asked for. `None` leaves it to the worker's settings."""

    preserve_formatting: bool = False
    extract_metadata: bool = True
    generate_embeddings: bool | None = None
    ocr: OcrMode = "auto"
    password: SecretStr | None = None


class TextExtraction(_Job):
    """A job of `text-extraction`. `format` is a name (`pdf`) or a media type, and only a hint."""

    document_id: Id
    source_url: Url
    tenant_id: Id
    format: Annotated[str, StringConstraints(max_length=128)] | None = None
    user_id: Id | None = None
    language: Language | None = None
    options: ExtractionOptions = ExtractionOptions()


class ContentRead(_Job):
    """Which bytes an extraction read, and by which pipeline."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]
    pipeline: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class OcrProcessing(_Job):
    """A job of `ocr-processing`. Without `pages` every page is read that has no text of its own."""

    document_id: Id
    source_url: Url
    tenant_id: Id
    pages: Annotated[list[PageNumber], Field(min_length=1, max_length=MOST_PAGES)] | None = None
    language: Language | None = None
    password: SecretStr | None = None
    # Set on jobs that an extraction made; `None` leaves it to the worker's settings.
    generate_embeddings: bool | None = None
    # Set on jobs that an extraction made: they read the pictures of what that read, and of nothing else.
    content: ContentRead | None = None


class EmbeddingGeneration(_Job):
    """A job of `embedding-generation`. `model` must be the configured one, where it is given."""

    document_id: Id
    tenant_id: Id
    model: Id | None = None
