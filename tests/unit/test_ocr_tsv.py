from __future__ import annotations

from ingestion_worker.ocr.tsv import Reading, reading

HEAD = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"


def table(*rows: tuple[int, int, int, float, str]) -> str:
    """Write rows of block, paragraph, line, confidence and text."""
    return "\n".join([HEAD, *(f"5\t1\t{b}\t{p}\t{n}\t1\t0\t0\t9\t20\t{c}\t{text}" for b, p, n, c, text in rows), ""])


def test_lines_and_paragraphs_stand_as_they_stood() -> None:
    read = reading(table((1, 1, 1, 90, "Dear"), (1, 1, 1, 80, "Sir"), (1, 1, 2, 70, "or"), (1, 2, 1, 60, "Yours")))

    assert read.text == "Dear Sir\nor\n\nYours"
    assert (read.words, read.height) == (4, 20)
    assert read.confidence == 0.75


def test_what_is_no_word_is_passed_over() -> None:
    rows = "4\t1\t1\t1\t1\t0\t0\t0\t9\t20\t-1\t"

    assert reading(table((1, 1, 1, 95, " ")) + rows) == Reading()
    assert reading("") == Reading()


def test_a_page_read_whole_is_worth_more_than_half_of_it_read_surely() -> None:
    half = reading(table(*[(1, 1, n, 97.0, "word") for n in range(10)]))
    whole = reading(table(*[(1, 1, n, 85.0, "word") for n in range(20)]))
    garbage = reading(table(*[(1, 1, n, 30.0, "w~rd") for n in range(40)]))

    assert whole.worth > half.worth > reading("").worth > garbage.worth
