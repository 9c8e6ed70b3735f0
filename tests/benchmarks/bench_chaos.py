"""Three events-workers, writers, and faults drawn at random: do the nine invariants of the outbox hold?

  python tests/benchmarks/bench_chaos.py [--of relay|workflows] [--minutes N] [--seed S] [--lease SECONDS] [--json]

Workers are killed, frozen, stopped and cut off; PostgreSQL and Redis killed and restarted, jobs forgotten, rows locked,
partitions taken away. Handlers and writers tell what they do in a file of their own, from which the verdict is made.
With `--of workflows` three workflow-workers, fifty organisations, a receiver of their effects, and operators who purge,
pause, reset and cancel; their leases are those thirty seconds that are the least, unless it says otherwise.
Exits with 1 when an invariant is broken, and then keeps the history and the logs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

# Run as a file, its own folder is what Python searches; the chaos is the tests' affair.
sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos import stage
from chaos.workflows import stage as workflows

if TYPE_CHECKING:
    from chaos.verdict import Verdict


def main() -> None:
    arguments = parsed()
    folder, started = Path(tempfile.mkdtemp(prefix="chaos-")), time.monotonic()
    verdict = played(arguments, folder)
    figures = {
        "seed": arguments.seed,
        **dict(sorted(verdict.counted.items())),
        "seconds": round(time.monotonic() - started),
    }
    table = "".join(f"{name:40}{number:>8}\n" for name, number in figures.items())
    sys.stdout.write(json.dumps({"figures": figures, "wrong": verdict.wrong}) + "\n" if arguments.json else table)
    if verdict.wrong:
        sys.exit("\n".join([f"the evidence is in {folder}", *verdict.wrong]))
    shutil.rmtree(folder)


def played(arguments: argparse.Namespace, folder: Path) -> Verdict:
    """Run what was asked for."""
    seconds, seed = arguments.minutes * 60, arguments.seed
    if arguments.of == "workflows":
        return workflows.play(workflows.Scene(seconds, seed, arguments.lease), folder)
    return stage.play(stage.Scene(seconds, seed), folder)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--of", choices=("relay", "workflows"), default="relay", help="what is to break (default relay)"
    )
    parser.add_argument("--lease", type=int, default=30, help="of workflows: seconds that a lease lasts (default 30)")
    parser.add_argument("--minutes", type=float, default=5, help="how long faults are brought (default 5)")
    parser.add_argument("--seed", type=int, default=1, help="of what goes wrong when (default 1)")
    parser.add_argument("--json", action="store_true", help="one machine-readable line instead of the table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
