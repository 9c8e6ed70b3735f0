"""The words of RTF that mean something to a reader of text."""

from __future__ import annotations

__all__ = [
    "AGAIN",
    "APART",
    "CHARACTERS",
    "DOCUMENT_CHARSETS",
    "FONTS",
    "FOOTERS",
    "HEADERS",
    "LEFT_OUT",
    "MARKS",
    "OUT",
    "PROPERTIES",
    "READABLE",
    "SAID_AGAIN",
    "SIGNS",
    "STARTS",
    "TEXT",
    "TIMES",
]

# Groups that are no text, beside all those that begin with `\*`.
LEFT_OUT = frozenset(
    (
        *("colortbl", "stylesheet", "listtable", "listoverridetable", "revtbl", "rsidtbl", "info"),
        *("pict", "fldinst", "upr", "xe", "tc", "tcn", "rxe"),
        *("txe", "nextfile", "template", "ftnsep", "ftnsepc", "ftncn", "aftnsep"),
        *("aftnsepc", "aftncn", "private", "filetbl", "sp", "datafield", "objdata"),
    )
)
# What was said before in newer words.
SAID_AGAIN = frozenset({"nonshppict", "shprslt"})
HEADERS = frozenset({"header", "headerl", "headerr", "headerf"})
FOOTERS = frozenset({"footer", "footerl", "footerr", "footerf"})
PROPERTIES = {"title": "title", "author": "author", "subject": "subject", "keywords": "keywords"}
TIMES = {"creatim": "created", "revtim": "modified"}
MARKS = frozenset({"listtext", "pntext"})
APART = HEADERS | FOOTERS | MARKS | {"footnote"}
# Kinds of groups that are none of those.
TEXT, OUT, FONTS, AGAIN = "text", "out", "fonts", "again"
READABLE = APART | {TEXT}
# Wherever they stand, text boxes are text again.
STARTS = {"shptxt": TEXT, "dptxbxtext": TEXT, "fonttbl": FONTS}
CHARACTERS = {
    "tab": "\t",
    "line": "\n",
    "softline": "\n",
    "emdash": "\u2014",
    "endash": "\u2013",
    "lquote": "\u2018",
    "rquote": "\u2019",
    "ldblquote": "\u201c",
    "rdblquote": "\u201d",
    "bullet": "\u2022",
    "emspace": " ",
    "enspace": " ",
    "qmspace": " ",
    "nestcell": "; ",
    "nestrow": "\n",
}
SIGNS = {b"~": "\u00a0", b"_": "-", b"\\": "\\", b"{": "{", b"}": "}"}
DOCUMENT_CHARSETS = {"ansi": "cp1252", "mac": "mac-roman", "pc": "cp437", "pca": "cp850"}
