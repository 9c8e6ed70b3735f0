from __future__ import annotations

import time

from ingestion_worker.ocr.reading_order import Line, text_in_reading_order


def column(letter: str, left: float, width: float, *, top: float = 0.2, lines: int = 5) -> list[Line]:
    return [Line(f"{letter}{number}", left, top + number * 0.03, width, 0.02) for number in range(lines)]


def test_columns_of_prose_are_read_one_after_the_other_below_their_headline() -> None:
    headline, footer = Line("Headline", 0.1, 0.1, 0.8, 0.04), Line("Footer", 0.1, 0.9, 0.8, 0.02)
    page = [headline, *column("l", 0.1, 0.35), *column("r", 0.55, 0.35), footer]

    text = text_in_reading_order(sorted(page, key=lambda line: line.top))

    assert text.split() == ["Headline", *(f"l{n}" for n in range(5)), *(f"r{n}" for n in range(5)), "Footer"]


def test_labels_and_values_stay_side_by_side() -> None:
    labels = [Line(f"label{n}", 0.1, 0.1 + n * 0.03, 0.1, 0.02) for n in range(5)]
    values = [Line(f"value{n}", 0.6, 0.101 + n * 0.03, 0.05, 0.02) for n in range(5)]

    assert text_in_reading_order([*labels, *values]).splitlines() == [f"label{n} value{n}" for n in range(5)]


def test_a_wide_gap_ends_a_paragraph() -> None:
    page = [*column("a", 0.1, 0.8, lines=2), *column("b", 0.1, 0.8, top=0.3, lines=2)]

    assert text_in_reading_order(page) == "a0\na1\n\nb0\nb1"


def test_nothing_is_nothing() -> None:
    assert text_in_reading_order([]) == ""


def test_every_line_is_there_once_and_a_full_page_takes_no_time() -> None:
    three = [line for number in range(3) for line in column(f"c{number}-", 0.03 + number * 0.33, 0.28, lines=30)]
    started = time.monotonic()

    read = text_in_reading_order(three).split()

    assert read == [line.text for line in three]
    assert time.monotonic() - started < 1
