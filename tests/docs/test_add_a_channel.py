"""The diff in the document is what is there."""

from __future__ import annotations

import re
from pathlib import Path

from events_worker.rules import Surroundings, load_rules

ROOT = Path(__file__).parents[2]


def test_the_line_is_the_line() -> None:
    page = (ROOT / "docs/how-to/add-a-channel.md").read_text()
    (diff,) = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    after = "".join(line[1:] + "\n" for line in diff.splitlines())
    queues = (ROOT / "shared/worker_runtime/settings/queues.py").read_text()

    assert after in queues


def test_the_slack_rule_can_be_used(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/send-to-slack.md").read_text()
    (rule,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"rules:\n{rule}")

    assert [one.name for one in load_rules(rules, Surroundings()).rules] == ["big-deal"]
