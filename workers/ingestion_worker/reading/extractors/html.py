"""HTML as Markdown: headings, lists, tables, quotations and code; what a browser does not show is left out."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from ingestion_worker.reading.charset import charset_of, pieces_of
from ingestion_worker.reading.extractors.body_text import BodyText
from ingestion_worker.reading.flow import numbered, paged
from ingestion_worker.reading.source import Extracted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ingestion_worker.reading.charset import Charset
    from ingestion_worker.reading.source import Source

__all__ = ["blocks_of_html", "declared_charset", "extract"]

# Where a page says its charset, browsers look in the first kilobyte; hand-made pages begin later.
BEGINNING = 4_096
META_CHARSET = re.compile(rb"""<meta\b[^>]*?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
XML_CHARSET = re.compile(rb"""^\s*<\?xml\b[^>]*?encoding\s*=\s*["']([\w.:-]+)""")

NOT_SHOWN = frozenset(
    {"script", "style", "template", "noscript", "svg", "math", "head", "object", "iframe", "select", "datalist", "rp"}
)
HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
BLOCKS = frozenset(
    {"p", "div", "section", "article", "header", "footer", "main", "aside", "nav", "address", "figure", "figcaption"}
    | {"ul", "ol", "dl", "dt", "dd", "li", "blockquote", "pre", "form", "fieldset", "hr", "center", "body", "details"}
    | {"summary", "caption", "html", "legend", "option", *HEADINGS}
)
TABLE_TAGS = frozenset({"table", "tr", "td", "th"})
VOID_TEXT = {"br": "\n", "wbr": "", "hr": ""}
PREFIX = {"li": "- ", "blockquote": "> ", "dt": "", "dd": "", **HEADINGS}
# Of one piece between two tags: a page's longest word is not this long.
SPACE = re.compile(r"[ \t\n\r\f]+")
DEEPEST_TABLE = 20
# Characters that may wait for the end of a tag, all of which are looked at again with each piece; and of `</script`.
LONGEST_TAG, LONGEST_END = 65_536, 16
PIECE = 16_384


def extract(source: Source) -> Extracted:
    """Read a page of the web."""
    with source.path.open("rb") as file:
        beginning = file.read(BEGINNING)
    charset = charset_of(source.path, [("sender", source.charset), ("document", declared_charset(beginning))])
    metadata: dict[str, str | int | float | bool] = {"charset": charset.name, "charsetFrom": charset.known_from}
    return Extracted(numbered(paged(blocks_of_html(_pieces(source, charset), metadata))), metadata)


def declared_charset(beginning: bytes) -> str | None:
    """Return what a page says its charset is. One that says UTF-16 in ASCII letters does not mean it."""
    found = META_CHARSET.search(beginning) or XML_CHARSET.search(beginning)
    name = found[1].decode("ascii", "replace").lower() if found else None
    return None if name and name.startswith(("utf-16", "utf16", "utf-32")) else name


def _pieces(source: Source, charset: Charset) -> Iterator[str]:
    for piece in pieces_of(source.path, charset):
        for start in range(0, len(piece), PIECE):
            yield piece[start : start + PIECE]


def blocks_of_html(pieces: Iterable[str], metadata: dict[str, str | int | float | bool]) -> Iterator[str]:
    """Yield blocks of Markdown; what the page says about itself goes to `metadata`."""
    reader = _Reader(metadata)
    for piece in pieces:
        reader.feed_bounded(piece)
        yield from reader.out.taken()
    reader.close()
    reader.end_block()
    while reader.out.in_table:
        reader.out.end_table()
    yield from reader.out.taken()


class _Reader(HTMLParser):
    """Counts on nothing to be closed, as browsers do not."""

    def __init__(self, metadata: dict[str, str | int | float | bool]) -> None:
        super().__init__(convert_charrefs=True)
        self.out = BodyText()
        self._metadata = metadata
        self._hidden: list[str] = []  # What is not shown and has not ended.
        self._before = ""
        self._is_preformatted = False
        self._title: list[str] | None = None
        self._text: list[str] = []
        self._tables = 0
        self._dropped_until = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and "title" not in self._metadata:
            self._title = []
        elif tag in ("meta", "html"):
            self._note(tag, dict(attrs))
        elif tag == "body":
            self._hidden.clear()
        if tag in NOT_SHOWN:
            self._hidden.append(tag)
        elif tag in BLOCKS and not self._hidden:
            self.end_block()
            self._before = PREFIX.get(tag, self._before if tag in ("p", "div") else "")
            self._is_preformatted = tag == "pre"
        elif tag in TABLE_TAGS and not self._hidden:
            self._begin_table_part(tag)
        elif tag in VOID_TEXT and not self._hidden:
            self._text.append(VOID_TEXT[tag])
        elif tag == "img" and not self._hidden:
            self._text.append(dict(attrs).get("alt") or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in NOT_SHOWN:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag == "title" and self._title is not None:
            self._metadata["title"] = " ".join("".join(self._title).split())
            self._title = None
        if tag in self._hidden[-1:]:
            self._hidden.pop()
        elif tag == "head":
            self._hidden.clear()
        elif tag in BLOCKS and not self._hidden:
            self.end_block()
            self._before = ""
            self._is_preformatted = self._is_preformatted and tag != "pre"
        elif tag in TABLE_TAGS and not self._hidden:
            self._end_table_part(tag)

    def handle_data(self, data: str) -> None:
        if self._title is not None:
            self._title.append(data)
        elif not self._hidden:
            self._text.append(data if self._is_preformatted else SPACE.sub(" ", data))

    def end_block(self) -> None:
        """Write down what has been gathered since the last block."""
        if not self._text:
            return
        text = "".join(self._text)
        self._text = []
        if self._is_preformatted:
            self._end_code(text)
        elif text := re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", text)).strip():
            self.out.block(text if not self._before.startswith("#") else text.replace("\n", " "), self._before)
            self._before = ""

    def _end_code(self, text: str) -> None:
        if text.strip():
            code = text.strip("\n")
            self.out.block(code if self.out.in_table else f"```\n{code}\n```")

    def _begin_table_part(self, tag: str) -> None:
        self.end_block()
        self._before = ""
        if tag == "table":
            self._tables += 1
        if self._tables > DEEPEST_TABLE:
            return
        if tag == "table":
            self.out.begin_table()
        elif tag == "tr":
            self.out.end_cell()
            self.out.begin_row()
        else:
            self.out.begin_cell()

    def _end_table_part(self, tag: str) -> None:
        self.end_block()
        deep = self._tables > DEEPEST_TABLE
        if tag == "table":
            self._tables = max(self._tables - 1, 0)
        if deep:
            return
        if tag == "table":
            self.out.end_table()
        elif tag == "tr":
            self.out.end_cell()
            self.out.end_row()
        else:
            self.out.end_cell()

    def _note(self, tag: str, attributes: dict[str, str | None]) -> None:
        if tag == "html" and attributes.get("lang"):
            self._metadata.setdefault("language", attributes["lang"] or "")
        name = (attributes.get("name") or "").lower()
        if name in ("author", "description", "keywords") and attributes.get("content"):
            self._metadata.setdefault(name, attributes["content"] or "")

    def feed_bounded(self, piece: str) -> None:
        """Take a piece, but for what belongs to a tag or a comment too long to be kept, as an embedded picture is."""
        if self._dropped_until:
            _, end, piece = piece.partition(self._dropped_until)
            self._dropped_until = "" if end else self._dropped_until
        self.feed(piece)
        if len(self.rawdata) > LONGEST_TAG:
            self._drop_what_waits()

    def _drop_what_waits(self) -> None:
        if self.cdata_elem:  # Of a script or a style its end may have begun.
            self.rawdata = self.rawdata[-LONGEST_END:]
        elif self.rawdata.startswith("<"):
            self._dropped_until = "-->" if self.rawdata.startswith("<!--") else ">"
            self.rawdata = ""

    def close(self) -> None:
        """End as browsers do: a tag or a comment without its end is none."""
        if self.rawdata.startswith("<"):
            self.rawdata = ""
        super().close()
