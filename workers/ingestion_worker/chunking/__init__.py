"""Cuts pages into pieces of text for search: token-exact, at headings, paragraphs, sentences, words."""

from ingestion_worker.chunking.task import chunk

__all__ = ["chunk"]
