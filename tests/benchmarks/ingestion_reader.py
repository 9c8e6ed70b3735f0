"""What a team would call in its own process: one library reads all files named, one after the other."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time


def main(reader: str, paths: list[str]) -> None:
    read = READERS[reader]
    read(paths[0])  # Importing and warming up are nobody's speed.
    started, before = time.perf_counter(), cpu_seconds()
    characters = sum(map(read, paths))
    taken = {"seconds": time.perf_counter() - started, "cpu": cpu_seconds() - before}
    sys.stdout.write(json.dumps({**taken, "characters": characters}) + "\n")


def by_pypdfium2(path: str) -> int:
    import pypdfium2  # noqa: PLC0415  each contender loads its own only

    with pypdfium2.PdfDocument(path) as document:
        return sum(len(page.get_textpage().get_text_range()) for page in document)


def by_pypdf(path: str) -> int:
    import pypdf  # noqa: PLC0415

    return sum(len(page.extract_text()) for page in pypdf.PdfReader(path).pages)


def by_kreuzberg(path: str) -> int:
    import kreuzberg  # noqa: PLC0415

    return len(kreuzberg.extract_file_sync(path, config=kreuzberg.ExtractionConfig(use_cache=False)).content)


def by_pdftotext(path: str) -> int:
    return len(subprocess.run(["pdftotext", path, "-"], capture_output=True, check=True).stdout)


READERS = {"pypdfium2": by_pypdfium2, "pypdf": by_pypdf, "pdftotext": by_pdftotext, "kreuzberg": by_kreuzberg}


def cpu_seconds() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
