"""Talking to the person who started the program."""

from __future__ import annotations

import logging
import sys

import structlog


def say(text: str) -> None:
    """Report progress and trouble; standard output is for results."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def show(text: str) -> None:
    """Give a result."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def log_warnings_only() -> None:
    """Keep what the runtime logs off standard output, and its small talk off the terminal."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
