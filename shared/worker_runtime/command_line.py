"""`<process>`, `<process> check`, `<process> probe`, `<process> --drain`: what an operator can say to a worker."""

from __future__ import annotations

import argparse
import asyncio
import http.client
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
import uvloop

from worker_runtime import logs, telemetry
from worker_runtime.ending import FAILED, Ending, bad_configuration, end_process
from worker_runtime.runtime import installed_version
from worker_runtime.settings import SettingsError, load, misspelt, warnings_about

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker_runtime.settings import WorkerSettings
    from worker_runtime.worker import Worker

log = structlog.get_logger()

PROBE_SECONDS = 2.0
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  compared with, not listened on
OK = 200


def run_command(worker: type[Worker[Any]], arguments: Sequence[str]) -> NoReturn:
    """Do what the arguments say and end the process; exit code 2 for arguments that make no sense."""
    asked = _parser(worker.name).parse_args(arguments)
    if asked.action == "check":
        raise SystemExit(check(worker.settings_type))
    if asked.action == "probe":
        raise SystemExit(probe(worker.settings_type))
    end_process(serve(worker, until_drained=asked.drain))


def check(settings_type: type[WorkerSettings]) -> int:
    """Print what is wrong with the configuration, and what may be; return 1 when it cannot be used."""
    try:
        settings = load(settings_type)
    except SettingsError as error:
        _print("error", error.problems)
        _print("warning", misspelt(settings_type))
        return FAILED
    _print("warning", warnings_about(settings))
    _print("note", settings.notes())
    print("configuration is valid")  # noqa: T201
    return 0


def probe(settings_type: type[WorkerSettings]) -> int:
    """Ask the running process whether it is live; return 1 when it is not, or does not answer."""
    try:
        settings = load(settings_type)
    except SettingsError as error:
        _print("error", error.problems)
        return FAILED
    host = "127.0.0.1" if settings.health_host in EVERY_ADDRESS else settings.health_host
    connection = http.client.HTTPConnection(host, settings.health_port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        print(answer.read().decode())  # noqa: T201
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer from {host}:{settings.health_port}: {error}")  # noqa: T201
        return FAILED
    finally:
        connection.close()
    return 0 if answer.status == OK else FAILED


def serve(worker: type[Worker[Any]], *, until_drained: bool = False) -> Ending:
    """Load the settings and live until something ends that."""
    logs.configure("info", worker.name)
    try:
        settings = load(worker.settings_type)
    except SettingsError as error:
        ending = bad_configuration(error.problems)
        for warning in misspelt(worker.settings_type):
            log.warning("setting_warning", warning=warning)
        return ending
    logs.configure(settings.log_level, worker.name)
    for warning in warnings_about(settings):
        log.warning("setting_warning", warning=warning)
    telemetry.configure(settings.otel_exporter_otlp_endpoint, worker=worker.name, version=installed_version())
    return _run(worker, settings, until_drained=until_drained)


def _run(worker: type[Worker[Any]], settings: WorkerSettings, *, until_drained: bool) -> Ending:
    # Not asyncio.run: at its end that waits for every task, also for one that refuses to be cancelled.
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(worker().live(settings, until_drained=until_drained))
    except Exception as error:
        log.exception("worker_failed")
        return Ending(FAILED, f"a bug: {type(error).__name__}: {error}")
    finally:
        telemetry.shut_down()


def _print(kind: str, lines: Sequence[str]) -> None:
    for line in lines:
        print(f"{kind}: {line}")  # noqa: T201


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, description="Runs until it is told to stop (SIGTERM).")
    parser.add_argument("action", nargs="?", choices=("check", "probe"), help="validate the configuration; ask if live")
    parser.add_argument("--drain", action="store_true", help="work until the queues are empty, then exit")
    return parser
