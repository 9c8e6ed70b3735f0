"""The page about e-mail: its jobs are jobs, and its table is what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mails import composed, parsed, stationery
from notifications_worker.channels.smtp_replies import SmtpFailure, Stage, classify
from notifications_worker.notification import Notification
from notifications_worker.unsubscribe_links import UnsubscribeLinks

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "send-e-mail.md").read_text()
JOBS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
LINKS = UnsubscribeLinks("https://crm.example.com/hooks", ["a secret that is long enough for it"])


def test_its_jobs_become_mail(tmp_path: Path) -> None:
    for attachment in JOBS[0]["content"]["attachments"]:
        path = tmp_path / attachment["storageKey"]
        path.parent.mkdir(parents=True)
        path.write_bytes(b"a file")
    invoice, newsletter = (
        parsed(
            composed(
                job["content"], stationery(tmp_path, links=LINKS), **{key: job[key] for key in job if key != "content"}
            )
        )
        for job in JOBS
    )

    assert [part.get_filename() for part in invoice.iter_attachments()] == ["Invoice 2026-117.pdf"]
    assert newsletter["List-Unsubscribe"].startswith("<https://crm.example.com/hooks/unsubscribe/")
    assert all(Notification.model_validate(job) for job in JOBS)


def test_the_codes_it_names_are_those_that_suppress() -> None:
    row = next(line for line in PAGE.splitlines() if "HARD_BOUNCE" in line)
    named = set(re.findall(r"5\.\d\.\d+", row))
    possible = {f"5.{subject}.{detail}" for subject in range(8) for detail in range(31)}
    verdicts = {code: classify(SmtpFailure(Stage.RCPT, 550, f"{code} no")) for code in possible}

    assert {code for code, verdict in verdicts.items() if verdict.suppress} == named
