from __future__ import annotations

import ast
import fcntl
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

DEV = Path(__file__).parents[2] / "dev"
OLDEST_GRAMMAR = (3, 7)


@pytest.fixture
def checkout(tmp_path: Path) -> Any:
    """The bootstrap as if it lay in an otherwise empty checkout."""
    for name in ("requirements.lock", "requirements-uv.lock", "pyproject.toml"):
        (tmp_path / name).write_text(name)
    copy = tmp_path / "dev"
    copy.write_bytes(DEV.read_bytes())
    loader = SourceFileLoader("dev_of_a_test", str(copy))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def prepared(checkout: Any) -> None:
    (checkout.VENV / "bin").mkdir(parents=True)
    checkout.PYTHON.touch()
    (checkout.VENV / ".ready").write_text(checkout.fingerprint())


def test_an_old_python_gets_a_sentence_instead_of_a_traceback() -> None:
    pretend = f"import sys, runpy; sys.version_info = (3, 9, 2, 'final', 0); runpy.run_path({str(DEV)!r})"

    ended = subprocess.run([sys.executable, "-c", pretend], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "./dev needs Python 3.11 or newer, this is 3.9: try `python3.11 dev`\n"


def test_an_old_python_can_read_it_far_enough_to_say_so() -> None:
    ast.parse(DEV.read_text(), feature_version=OLDEST_GRAMMAR)


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 0), (["help"], 0), (["--help"], 0), (["tset"], 2), (["bench"], 2)]
)
def test_help_and_mistakes(arguments: list[str], code: int) -> None:
    ended = subprocess.run([sys.executable, DEV, *arguments], capture_output=True, text=True, check=False)

    assert ended.returncode == code
    assert "./dev " in (ended.stderr if code else ended.stdout)


def test_an_environment_is_good_until_what_it_was_made_from_changes(checkout: Any) -> None:
    assert not checkout.is_prepared()
    prepared(checkout)
    assert checkout.is_prepared()

    checkout.LOCK.write_text("another lock")
    assert not checkout.is_prepared()


@pytest.mark.parametrize(
    "change",
    [
        lambda dev: setattr(dev, "BASE_PYTHON", "another python"),
        lambda dev: setattr(dev, "ROOT", dev.ROOT / "moved"),
        lambda dev: dev.PROJECT.write_text("another project"),
        lambda dev: (dev.VENV / ".ready").unlink(),
        lambda dev: dev.PYTHON.unlink(),
    ],
    ids=["interpreter", "place", "project", "interrupted", "interpreter removed"],
)
def test_it_is_made_again_when(checkout: Any, change: Callable[[Any], object]) -> None:
    prepared(checkout)

    change(checkout)

    assert not checkout.is_prepared()


def test_the_second_of_two_waits_and_finds_the_work_done(checkout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    checkout.CACHE.mkdir()
    with (checkout.CACHE / "dev.lock").open("a") as first:
        fcntl.flock(first, fcntl.LOCK_EX)

        def first_finishes_now(sentence: str) -> None:
            said.append(sentence)
            prepared(checkout)
            fcntl.flock(first, fcntl.LOCK_UN)

        monkeypatch.setattr(checkout, "say", first_finishes_now)
        monkeypatch.setenv("PATH", os.environ["PATH"])
        monkeypatch.setenv("VIRTUAL_ENV", "")
        checkout.prepare_environment()

    assert said == ["another ./dev is setting up .venv: waiting for it"]


def test_the_shell_sees_the_stack_only_while_it_runs(checkout: Any) -> None:
    checkout.DATA.mkdir()
    (checkout.DATA / "environment").write_text("export 'SMTP_CA_FILE=/a b/ca.pem'\nexport PGPORT=5432\n")
    assert checkout.variables_of_running_stack() == {}

    with (checkout.DATA / "lock").open("a") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        assert checkout.variables_of_running_stack() == {"SMTP_CA_FILE": "/a b/ca.pem", "PGPORT": "5432"}
        assert checkout.main(["clean"]) == 1
        assert checkout.DATA.exists()

    (checkout.DATA / "beside-1").mkdir()
    with (checkout.DATA / "beside-1" / "lock").open("a") as running_beside:
        fcntl.flock(running_beside, fcntl.LOCK_EX)
        assert checkout.variables_of_running_stack() == {}
        assert checkout.main(["clean"]) == 1

    assert checkout.main(["clean"]) == 0
    assert not checkout.DATA.exists()
