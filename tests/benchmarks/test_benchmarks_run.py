"""Every benchmark runs, so that it cannot rot; how fast is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
COMPARED = ("--parts", "throughput", "latency")


def measured(*arguments: str) -> Any:
    return printed("bench_engine.py", *arguments, "--repeats", "1")


def printed(file: str, *arguments: str) -> Any:
    command = [sys.executable, str(HERE / file), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.needs("node", "npm")
def test_the_engine_s_speed_is_measured_beside_both_others() -> None:
    rows = measured("--parts", "throughput", "--jobs", "150")["throughput"]
    others = {("Node", 50), ("stock Python", 50), ("stock, uvloop", 50)}
    everybody = others | {("ours", 10), ("ours", 50), ("ours", 200)}
    assert {(row["contender"], row["concurrency"]) for row in rows} == everybody
    assert all(row["jobsPerSecond"] > 0 and row["enqueuedPerSecond"] > 0 for row in rows)


@pytest.mark.needs("node", "npm")
def test_the_engine_s_alertness_is_measured_beside_both_others() -> None:
    rows = measured("--parts", "alertness", "--seconds", "1")["alertness"]
    assert [row["contender"] for row in rows] == ["Node", "ours", "stock Python"]
    assert all(row["wakeP50Ms"] > 0 and row["limitUsed"] > 0 for row in rows)


@pytest.mark.needs("node", "npm")
def test_outages_are_measured_of_ours() -> None:
    (row,) = measured("--parts", "outages", "--only", "ours", "--away", "1")["outages"]
    assert 0 < row["killedSeconds"] < 60
    assert 0 < row["awaySeconds"] < 60


@pytest.mark.needs("node", "npm")
def test_the_relay_is_measured_beside_those_that_teams_write() -> None:
    rows = printed("bench_relay.py", "--parts", "throughput", "--events", "300", "--repeats", "1")["throughput"]
    assert [row["contender"] for row in rows] == ["Node pg + addBulk", "asyncpg + bullmq", "ours", "ours, 2 processes"]
    assert all(row["eventsPerSecond"] > 0 for row in rows)


def test_what_a_hint_gains_and_costs_is_measured() -> None:
    measured = printed("bench_relay.py", "--parts", "latency", "writers", "--seconds", "0.3", "--repeats", "1")
    assert [row["contender"] for row in measured["latency"]] == ["polled", "hinted"]
    assert all(row["p50Ms"] > 0 for row in measured["latency"])
    assert all(row["commitsPerSecond"] > 0 for row in measured["writers"])


def test_order_and_looks_are_measured() -> None:
    measured = printed("bench_relay.py", "--parts", "order", "look", "--events", "200", "--finished", "1000")
    assert all(row["eventsPerSecond"] > 0 for row in measured["order"])
    assert measured["look"][0]["nothingMs"] > 0


def test_the_contracts_cost_is_measured() -> None:
    measured = printed("bench_contracts.py", "--events", "50", "--repeats", "1")
    assert [row["contender"] for row in measured["worker"]] == ["valid", "a field is missing", "lifted three times"]
    assert [row["contender"] for row in measured["database"]] == ["unchecked", "checked"]
    assert all(row["microseconds"] > 0 for rows in measured.values() for row in rows)


def test_mail_is_measured_from_the_job_to_the_servers_answer() -> None:
    measured = printed("bench_email.py", "--mails", "20", "--repeats", "1", "--far", "1")
    assert [row["contender"] for row in measured["far"]] == ["pooled", "+ pipelining"]
    assert all(row["mailsPerSecond"] > 0 for rows in measured.values() for row in rows)


def test_mails_and_outages_are_measured_beside_the_usual_worker() -> None:
    measured = printed(
        "bench_notifications.py",
        "--parts",
        "email",
        "outage",
        "--jobs",
        "20",
        "--outage-jobs",
        "30",
        "--seconds",
        "1",
        "--repeats",
        "1",
    )
    assert [row["contender"] for row in measured["email"]] == [
        "bullmq + aiosmtplib",
        "record in Redis",
        "in PostgreSQL",
    ]
    assert all(row["perSecond"] > 0 for row in measured["email"])
    (outage,) = measured["outage"]
    assert (outage["burnt"], outage["dead"]) == (0, 0)
    assert outage["probes"] <= 1


@pytest.mark.timeout(180)
def test_documents_are_measured_beside_libraries_and_against_harm() -> None:
    few = ("--documents", "1", "--pages", "2", "--scans", "1", "--letters", "clean", "--hostile", "4")
    measured = printed("bench_ingestion.py", *few)
    assert {"pypdfium2", "ours, in all"} <= {row["contender"] for row in measured["text"]}
    assert [row["contender"] for row in measured["ocr"]] == ["tesseract", "ours, in all"]
    assert all(row["pagesPerCpuSecond"] > 0 for part in ("text", "ocr") for row in measured[part])
    assert measured["ocr"][1]["cer clean"] < 0.1
    (hostile,) = measured["hostile"]
    assert (hostile["documents"], hostile["typedPercent"], hostile["leasesLost"]) == (4, 100, 0)


@pytest.mark.timeout(240)
def test_workflows_are_measured_beside_their_peers() -> None:
    measured = printed("bench_workflows.py", *COMPARED, "--executions", "60", "--repeats", "1", "--starts", "5")
    peers = ["DBOS", "DBOS, threads", "Absurd"]
    assert [row["contender"] for row in measured["throughput"]] == [*peers, "ours", "limit"]
    assert all(row["executionsPerSecond"] > 0 and row["enqueuedPerSecond"] > 0 for row in measured["throughput"])
    assert [row["contender"] for row in measured["latency"]] == [*peers, "ours", "ours, hinted"]
    assert all(row["p50Ms"] > 0 for row in measured["latency"])


def test_purging_is_measured_by_its_statements() -> None:
    rows = printed("bench_jobs_purge.py", "--jobs", "2000")
    assert [row["contender"] for row in rows] == ["retry-all", "purge"]
    assert all(row["longestMs"] > 0 and row["jobsPerSecond"] > 0 for row in rows)


def test_how_long_a_small_organisation_waits_behind_others_is_measured() -> None:
    rows = printed("bench_workflows.py", "--parts", "neighbours", "--backlog", "3000", "--starts", "8")["neighbours"]
    assert [row["contender"] for row in rows] == ["1 x 3,000", "10 x 300", "1,000 x 3"]
    assert all(row["slowestMs"] >= row["p50Ms"] > 0 for row in rows)


def test_jobs_are_measured_beside_procrastinate_s_own_worker() -> None:
    measured = printed("bench_jobs.py", *COMPARED, "--jobs", "60", "--repeats", "1", "--singles", "5")
    everybody = ["Procrastinate, 10", "Procrastinate, 50", "ours, 10", "ours, 50"]
    assert [row["contender"] for row in measured["throughput"]] == everybody
    assert all(row["executionsPerSecond"] > 0 for row in measured["throughput"])
    assert [row["contender"] for row in measured["latency"]] == everybody
    assert all(row["p50Ms"] > 0 for row in measured["latency"])


def test_what_an_outage_costs_jobs_is_measured() -> None:
    rows = printed("bench_jobs.py", "--parts", "recovery", "--jobs", "500", "--seconds", "1")["recovery"]
    faults = ("nothing", "restart", "connections")
    everybody = [f"{name}, {fault}" for name in ("Procrastinate", "ours") for fault in faults]
    assert [row["contender"] for row in rows] == everybody
    assert all(row["before"] > 0 for row in rows)
