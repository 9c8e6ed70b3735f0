"""Tests that need a program only the operating system has are left out where it is missing, and that is said aloud.

`@pytest.mark.needs("node", "npm")` on a test, or `pytestmark = pytest.mark.needs(...)` in a module. With `CI` set
such a test fails instead: there, nothing is left out.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBIAN_PACKAGES = {
    "bwrap": "bubblewrap",
    "node": "nodejs",
    "promtool": "prometheus",
    "psql": "postgresql-client",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
}
LEFT_OUT = pytest.StashKey[dict[str, int]]()
ORDER = ("unit", "contract", "integration", "acceptance", "interop", "docs", "chaos", "benchmarks")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): left out where one of these is not on the PATH")
    config.stash[LEFT_OUT] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not os.environ.get("CI"):
        lacking = [item for item in items if missing_programs(item)]
        config.stash[LEFT_OUT] = dict(Counter(" ".join(missing_programs(item)) for item in lacking))
        config.hook.pytest_deselected(items=lacking)
        items[:] = [item for item in items if item not in lacking]
    items.sort(key=place)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if missing := missing_programs(item):
        pytest.fail(
            f"{' and '.join(missing)} must be installed where CI is set: nothing is left out there", pytrace=False
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    # A process of pytest-xdist hands its count to the one that writes the summary.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT].copy()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    # Every process collects everything, so the last one's count is as good as any.
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    yield
    for programs, count in sorted(config.stash[LEFT_OUT].items()):
        packages = " ".join(DEBIAN_PACKAGES.get(program, program) for program in programs.split())
        terminalreporter.write_line(
            f"LEFT OUT: {count} test(s), for want of: {programs}. To include them: apt-get install {packages}"
        )


def missing_programs(item: pytest.Item) -> list[str]:
    needed = {program for marker in item.iter_markers("needs") for program in marker.args}
    return sorted(program for program in needed if not shutil.which(program))


def place(item: pytest.Item) -> int:
    """Cheap tests first, so that a mistake shows early."""
    folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
    return ORDER.index(folder) if folder in ORDER else len(ORDER)
