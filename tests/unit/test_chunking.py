"""Chunks of any text: nothing is lost, nothing is too long, and what is said of them is so."""

from __future__ import annotations

import json
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingestion_worker.chunking import chunk
from ingestion_worker.chunking.packing import Packer
from ingestion_worker.chunking.sentences import phrases, rows, sentences, words
from ingestion_worker.document import CHUNKS, PAGES, Chunk, Page, read_lines, write_lines
from ingestion_worker.embeddings.wordpiece import uncased
from ingestion_worker.isolation.task import Desk

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MOST = 32
SENTENCE = "The quick brown fox jumps over the lazy dog. "
PROSE = st.text(st.sampled_from("ab cd. E! ?\n\t,;-é漢。한\U0001f642\x0b\u2028\u0301'\")"), max_size=300)
LONG_WORD = st.builds(
    lambda part, times: part * times, st.text("ab+漢é\U0001f642", min_size=1, max_size=3), st.integers(1, 900)
)
BLOCK = st.one_of(
    PROSE,
    LONG_WORD,
    st.builds(lambda times: SENTENCE * times, st.integers(1, 12)),
    st.builds(lambda level, title: f"{'#' * level} {title}", st.integers(1, 7), st.text("abc #\t", max_size=20)),
    st.just("```\n# a comment, not a heading\n\ncode()\n```"),
)
PAGES_OF = st.lists(st.lists(BLOCK, max_size=4).map("\n\n".join), max_size=5)


def pages(texts: Iterable[str]) -> list[Page]:
    return [Page(number, text) for number, text in enumerate(texts, 1)]


def cut(*texts: str, tokens: int = MOST, overlap: int = 0) -> list[Chunk]:
    return list(Packer(uncased(), tokens=tokens, overlap=overlap).chunks(pages(texts)))


def letters(texts: Iterable[str]) -> str:
    return "".join("".join(text.split()) for text in texts)


@given(PAGES_OF, st.integers(16, 64))
@example(["```\n# a comment, not a heading\n\ncode()\n```\n\n;;\n\n;? \u0301\n\n;"], 22)
def test_without_overlap_all_of_the_text_is_there_once_and_in_order(texts: list[str], tokens: int) -> None:
    assert letters(piece.text for piece in cut(*texts, tokens=tokens)) == letters(texts)


@given(PAGES_OF, st.integers(16, 64), st.integers(0, 30))
@example(["a\U0001f642" * 604 + "\n\n\u6f22" + "\U0001f642" * 300], 26, 0)
def test_no_chunk_is_too_long_and_each_says_how_long_it_is(texts: list[str], tokens: int, overlap: int) -> None:
    chunks = cut(*texts, tokens=tokens, overlap=overlap)
    assert [piece.number for piece in chunks] == list(range(1, len(chunks) + 1))
    for piece in chunks:
        assert len(uncased().encode(piece.text, 10_000)) == piece.tokens <= tokens
        assert len(piece.text.encode()) <= tokens * 16
        assert piece.text == piece.text.strip() != ""


@given(PAGES_OF)
def test_a_chunk_stands_on_the_pages_that_it_says(texts: list[str]) -> None:
    """The pages' texts, and where each chunk is in them, found out without looking at what the chunk says."""
    ends, position = [], 0
    for text in texts:
        position += len(letters([text]))
        ends.append(position)

    def page_at(letter: int) -> int:
        return 1 + next(number for number, end in enumerate(ends) if letter < end)

    start = 0
    for piece in cut(*texts):
        length = len(letters([piece.text]))
        assert (piece.first_page, piece.last_page) == (page_at(start), page_at(start + length - 1))
        start += length


@given(st.lists(st.lists(st.integers(1, 45), max_size=6), max_size=5), st.integers(0, 31))
def test_what_is_repeated_is_the_end_of_the_chunk_before(lengths: list[list[int]], overlap: int) -> None:
    """Sentences of so many words, all of them different, so that what is repeated can be told from what is new."""
    number = count()
    paragraphs = [" ".join(f"N{next(number)} {'word ' * length}end." for length in paragraph) for paragraph in lengths]
    everything, done, before = letters(paragraphs), "", ""
    for piece in cut("\n\n".join(paragraphs), overlap=overlap):
        here = letters([piece.text])
        repeated = next(size for size in range(len(here)) if everything.startswith(done + here[size:]))
        assert before.endswith(here[:repeated])
        done += here[repeated:]
        before = here
    assert done == everything


@given(PAGES_OF)
def test_the_same_text_makes_the_same_chunks(texts: list[str]) -> None:
    assert cut(*texts, overlap=8) == cut(*texts, overlap=8)


@given(PROSE)
def test_the_parts_of_a_text_are_all_of_it(text: str) -> None:
    stripped = text.strip()
    for split in (sentences, phrases, words):
        assert "".join(split(stripped)) == stripped
    assert "".join(rows(text)) == text


def test_sentences_end_where_a_reader_says() -> None:
    text = (
        'Dr. Who met J. Doe at 3.15 p. m. today. "Really?" He did! E.g. this… and (so on.) Next one.\n- item\n- other'
    )
    assert list(sentences(text)) == [
        "Dr. Who met J. Doe at 3.15 p. m. today. ",
        '"Really?" ',
        "He did! ",
        "E.g. this… and (so on.) ",
        "Next one.\n",
        "- item\n",
        "- other",
    ]
    assert list(sentences("今日は。「はい。」次です。終わり")) == ["今日は。", "「はい。」", "次です。", "終わり"]


def test_a_heading_begins_a_chunk_and_stands_above_those_of_its_section() -> None:
    chunks = cut(f"# Book\n\nIntro.\n\n## One\n\n### Deep\n\n{SENTENCE * 6}\n\n## Two ##\n\nEnd.")
    assert [piece.headings for piece in chunks] == [
        ("Book",),
        *[("Book", "One", "Deep")] * 3,
        ("Book", "Two"),
    ]
    assert chunks[1].text.startswith("## One\n\n### Deep\n\nThe quick")


def test_sentences_stay_whole_as_long_as_they_fit() -> None:
    chunks = cut(" ".join(f"{SENTENCE}Number {number} says so. " for number in range(20)))
    assert all(piece.text.endswith(".") and piece.text[0].isupper() for piece in chunks)


def test_whole_sentences_are_repeated() -> None:
    chunks = cut(" ".join(f"Sentence {number} says it." for number in range(40)), overlap=12)
    for before, after in pairwise(chunks):
        assert [s.strip() for s in sentences(before.text)][-2:] == [s.strip() for s in sentences(after.text)][:2]
    assert sum(len(list(sentences(piece.text))) for piece in chunks) == 40 + 2 * (len(chunks) - 1)


def test_nothing_is_repeated_across_a_heading() -> None:
    assert cut("# A\n\nOne thing.\n\n# B\n\nAnother.", overlap=12)[1].text == "# B\n\nAnother."


def test_a_table_that_is_cut_repeats_its_header() -> None:
    header = "| a | b |\n| - | - |\n"
    chunks = cut(header + "".join(f"| row | {number} |\n" for number in range(30)), tokens=48, overlap=8)
    assert len(chunks) > 3
    assert all(piece.text.startswith(header) for piece in chunks)
    body = [line for piece in chunks for line in piece.text.splitlines()[2:]]
    assert body == [f"| row | {number} |" for number in range(30)]


def test_a_header_that_would_leave_no_room_is_not_repeated() -> None:
    header = f"| {' | '.join('abcdefghij')} |\n|{' - |' * 10}\n"
    chunks = cut(header + "| x |\n" * 60, tokens=64)
    assert [piece.text.count("| a |") for piece in chunks] == [1] + [0] * (len(chunks) - 1)


def test_a_chunk_may_begin_on_one_page_and_end_on_another() -> None:
    (only,) = cut("First page.", "", "  \n", "Fourth page.")
    assert (only.text, only.first_page, only.last_page) == ("First page.\n\nFourth page.", 1, 4)


def test_bytes_are_counted_with_what_is_between_two_blocks() -> None:
    pieces = cut("é" * 8 + "\n\n漢" + "\U0001f642" * 64, tokens=16)
    assert max(len(piece.text.encode()) for piece in pieces) <= 256


def test_what_has_no_tokens_is_not_repeated() -> None:
    texts = [SENTENCE * 3, "\u0301", SENTENCE * 3]
    assert letters(piece.text for piece in cut("\n\n".join(texts), tokens=36)) == letters(texts)


def test_a_word_that_is_cut_may_follow_any_overlap() -> None:
    text = f"{SENTENCE * 3}{'É+b' * 400} end"
    for overlap in range(65):
        chunks = cut(text, tokens=32, overlap=overlap)
        assert letters(piece.text for piece in chunks).endswith("É+bend")
        assert max(piece.tokens for piece in chunks) <= 32


def test_a_text_without_letters_makes_no_chunk() -> None:
    assert cut("", " \n\t\n", "\n\n") == []


@pytest.mark.parametrize("word", ["x", "0a+", "漢"])
def test_a_word_of_a_megabyte_is_cut(word: str) -> None:
    long = word * (1_048_576 // len(word.encode()))
    chunks = cut(f"before {long} after", tokens=256)
    assert letters(piece.text for piece in chunks) == f"before{long}after"
    assert max(piece.tokens for piece in chunks) <= 256


@pytest.mark.parametrize(
    "text", [". " * 300_000, "#" * 1_000_000, "|" * 300_000, "\n" * 500_000 + "x", "```\n" * 100_000, "# " * 200_000]
)
def test_no_text_takes_long(text: str) -> None:
    """These took minutes where the time grew with the square: the limit of every test is the limit here."""
    assert letters(piece.text for piece in cut(text, tokens=256)) == letters([text])


def test_the_task_reads_pages_and_writes_chunks(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_lines(tmp_path / PAGES, pages(f"# Page\n\n{SENTENCE * 9}" for _ in range(120)))
    order = {"model": "local", "tokens": 64, "overlap": 16, "describe": True}
    result: dict[str, Any] = chunk(Desk(tmp_path, order, lambda done, total: told.append((done, total))))
    chunks = list(read_lines(tmp_path / CHUNKS, Chunk))
    assert json.loads(json.dumps(result)) == {
        "chunks": len(chunks),
        "tokens": sum(piece.tokens for piece in chunks),
        "characters": 120 * len(f"# Page\n\n{SENTENCE * 9}"),
        "language": "eng",
    }
    assert chunks[-1].last_page == 120
    assert told == [(50, 120), (100, 120), (120, 120)]


def test_a_document_is_not_held_in_memory() -> None:
    """However many pages there are, the first chunks are there before the last pages were asked for."""
    asked = 0

    def endless() -> Iterable[Page]:
        nonlocal asked
        while True:
            asked += 1
            yield Page(asked, SENTENCE * 20)

    chunks = Packer(uncased(), tokens=256, overlap=32).chunks(endless())
    for _ in range(2_000):
        piece = next(chunks)
        assert asked - piece.last_page <= 1
