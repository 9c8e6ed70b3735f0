"""Documents before ClamAV: clean, infected, too large, and a scanner that is away, dies, hangs or babbles."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from fetch_desk import fetching_settings
from ingestion_worker.fetching.settings import FetchingSettings
from ingestion_worker.problem import DocumentError, Problem
from ingestion_worker.scanning import NoScanner, Scanner, ScannerUnavailable, opened_scanner
from scripted_clamd import EICAR, SIGNATURE, Fault, ScriptedClamd
from worker_runtime.metric_catalogue import DEFERRAL_CODES
from worker_runtime.outcome import Defer
from worker_runtime.settings import SettingsError, load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def document(tmp_path: Path) -> Path:
    return document_of(tmp_path, bytes(range(256)) * 8_000)


def document_of(folder: Path, content: bytes) -> Path:
    path = folder / "source"
    path.write_bytes(content)
    return path


@asynccontextmanager
async def scanning(folder: Path, clamd: ScriptedClamd, **changes: Any) -> AsyncIterator[Scanner]:
    settings = fetching_settings(folder, clamav_address=clamd.address, clamav_timeout_ms=20_000, **changes)
    async with opened_scanner(settings) as scanner:
        yield scanner


async def test_a_clean_document_passes(document: Path) -> None:
    async with ScriptedClamd() as clamd, scanning(document.parent, clamd) as scanner:
        await asyncio.gather(*(scanner.scan(document) for _ in range(8)))
        await scanner.scan(document_of(document.parent, b""))

    assert clamd.scanned == [2_048_000] * 8 + [0]


async def test_a_socket_with_a_path_does_as_well(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedClamd(document.parent / "s") as clamd, scanning(document.parent, clamd) as scanner:
        await scanner.scan(document)
    assert clamd.scanned == [2_048_000]


@pytest.mark.parametrize("before", [0, 262_144 - 10, 1_000_000])
async def test_an_infected_document_is_named_after_what_it_has(document: Path, before: int) -> None:
    document = document_of(document.parent, bytes(before) + EICAR + b"\n")
    async with ScriptedClamd() as clamd, scanning(document.parent, clamd) as scanner:
        with pytest.raises(DocumentError) as caught:
            await scanner.scan(document)
    assert caught.value.problem is Problem.INFECTED
    assert caught.value.sentence == f"ClamAV found {SIGNATURE} in the document"


async def test_a_signatures_name_cannot_write_into_a_log(document: Path) -> None:
    clamd = ScriptedClamd(reply=b"stream: Evil\x1b[31m\xff FOUND\0")
    async with clamd, scanning(document.parent, clamd) as scanner:
        with pytest.raises(DocumentError, match=r"ClamAV found Evil\?\[31m\? in the document"):
            await scanner.scan(document)


@pytest.mark.parametrize("most", [0, 100, 262_144, 2_047_999])
async def test_a_document_over_the_scanners_own_limit_names_the_setting(document: Path, most: int) -> None:
    async with ScriptedClamd(most=most) as clamd, scanning(document.parent, clamd) as scanner:
        for _ in range(5):
            with pytest.raises(DocumentError, match="StreamMaxLength") as caught:
                await scanner.scan(document)
            assert caught.value.problem is Problem.TOO_LARGE
    assert not clamd.scanned


async def test_a_document_that_was_not_looked_at_to_its_end_names_the_limit(document: Path) -> None:
    clamd = ScriptedClamd(reply=b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0")
    async with clamd, scanning(document.parent, clamd) as scanner:
        with pytest.raises(DocumentError, match=r"MaxFileSize in clamd\.conf") as caught:
            await scanner.scan(document)
    assert caught.value.problem is Problem.TOO_LARGE


@pytest.mark.parametrize(
    "reply",
    [
        Fault.DIE_MIDWAY,
        Fault.RESET_MIDWAY,
        Fault.DIE_AT_THE_END,
        Fault.HALF_AN_ANSWER,
        b"\0",
        b"OK\0",
        b"stream: OK FOUND OK\0",
        b"stream: OK\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"stream: Can't allocate memory ERROR\0",
        b"COMMAND READ TIMED OUT\0",
        b"x" * 100_000,
        bytes(range(1, 256)),
    ],
)
async def test_without_a_clear_answer_no_document_passes(document: Path, reply: bytes | Fault) -> None:
    async with ScriptedClamd(reply=reply) as clamd, scanning(document.parent, clamd) as scanner:
        with pytest.raises(ScannerUnavailable) as caught:
            await scanner.scan(document)
    outcome = caught.value.outcome
    assert isinstance(outcome, Defer)
    assert (outcome.code, outcome.seconds) == ("SCANNER_UNAVAILABLE", 10.0)
    assert outcome.code in DEFERRAL_CODES


async def test_a_scanner_that_is_not_there_is_waited_for(document: Path) -> None:
    async with ScriptedClamd() as clamd, ScriptedClamd(document.parent / "s") as other:
        pass
    for gone in (clamd, other):
        async with scanning(document.parent, gone) as scanner:
            with pytest.raises(ScannerUnavailable, match="CLAMAV_ADDRESS says where it is"):
                await scanner.scan(document)


async def test_a_scanner_whose_name_nobody_knows_is_waited_for(document: Path) -> None:
    settings = fetching_settings(document.parent, clamav_address="no-such-host.invalid:3310")
    async with opened_scanner(settings) as scanner:
        with pytest.raises(ScannerUnavailable):
            await scanner.scan(document)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.HANG_AT_ONCE])
async def test_a_scanner_that_hangs_is_given_up(document: Path, fault: Fault) -> None:
    document = document_of(document.parent, bytes(20_000_000))
    async with (
        ScriptedClamd(reply=fault) as clamd,
        opened_scanner(
            fetching_settings(document.parent, clamav_address=clamd.address, clamav_timeout_ms=500)
        ) as scanner,
    ):
        with pytest.raises(ScannerUnavailable, match=r"said nothing within 0\.5 s"):
            await scanner.scan(document)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.HANG_AT_ONCE])
async def test_a_cancelled_scan_ends_at_once(document: Path, fault: Fault) -> None:
    async with ScriptedClamd(reply=fault) as clamd, scanning(document.parent, clamd) as scanner:
        task = asyncio.create_task(scanner.scan(document))
        await clamd.arrived.wait()
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 1.0


async def test_where_none_is_configured_none_is_asked(tmp_path: Path) -> None:
    async with opened_scanner(fetching_settings(tmp_path)) as scanner:
        assert isinstance(scanner, NoScanner)
        await scanner.scan(tmp_path / "not even there")


@pytest.mark.parametrize("address", ["clamav:3310", "10.0.0.1:3310", "[::1]:3310", "/run/clamav/clamd.ctl"])
def test_an_address_of_a_scanner(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAMAV_ADDRESS", address)
    assert load(FetchingSettings).clamav_address == address


@pytest.mark.parametrize(
    "address",
    ["clamav", "clamav:", ":3310", "clamav:0", "clamav:65536", "tcp://clamav:3310", "::1:3310", "run/clamd:1"],
)
def test_what_is_no_address_of_a_scanner(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAMAV_ADDRESS", address)
    with pytest.raises(SettingsError, match="CLAMAV_ADDRESS"):
        load(FetchingSettings)
