"""What embeddings need is asked for at the start, all at once."""

from __future__ import annotations

import pytest

from ingestion_worker.settings import IngestionSettings
from worker_runtime.settings import SettingsError, load

DATABASE = "postgresql://localhost/crm"


def problems(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load(IngestionSettings)
    return "\n".join(caught.value.problems)


def loaded(monkeypatch: pytest.MonkeyPatch, **variables: str) -> IngestionSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load(IngestionSettings)


def test_nothing_is_needed_while_they_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, EMBEDDING_PROVIDER="openai")
    assert (settings.embedding_chunk_tokens, settings.embedding_chunk_overlap) == (256, 32)


def test_they_need_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, ENABLE_EMBEDDINGS="true").startswith("DATABASE_URL is not set")


def test_a_service_needs_an_address_and_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = problems(monkeypatch, ENABLE_EMBEDDINGS="true", EMBEDDING_PROVIDER="openai", DATABASE_URL=DATABASE)
    assert wrong.splitlines() == [
        "EMBEDDING_BASE_URL is not set, and EMBEDDING_PROVIDER=openai needs it",
        "EMBEDDING_MODEL is not set, and EMBEDDING_PROVIDER=openai needs it",
    ]


def test_no_more_than_half_of_a_piece_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = problems(monkeypatch, EMBEDDING_CHUNK_TOKENS="64", EMBEDDING_CHUNK_OVERLAP="33")
    assert wrong == "EMBEDDING_CHUNK_OVERLAP=33 is more than half a piece; allowed: 0 to 32"


@pytest.mark.parametrize(
    ("name", "value"),
    [("EMBEDDING_CHUNK_TOKENS", "513"), ("EMBEDDING_CHUNK_TOKENS", "31"), ("EMBEDDING_DIMENSIONS", "4001")],
)
def test_what_no_model_or_index_takes_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert problems(monkeypatch, **{name: value}).startswith(f"{name}='{value}' is too ")


def test_a_service_that_is_not_used_earns_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, EMBEDDING_MODEL="text-embedding-3-small", EMBEDDING_API_KEY="s3cret")
    assert "EMBEDDING_PROVIDER=local: EMBEDDING_API_KEY, EMBEDDING_MODEL ignored" in settings.warnings()
