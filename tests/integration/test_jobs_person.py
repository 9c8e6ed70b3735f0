"""`intelliflow person` finds and erases what jobs were given, what they died of, and what they were deferred by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from command_line import operator
from jobs_rows import jobs

if TYPE_CHECKING:
    from command_line import Operator
    from jobs_rows import Jobs

__all__ = ["jobs", "operator"]

ADA = "ada@example.com"
ARGS = {"to": {"email": ADA, "firstName": "Ada"}, "orderId": 7, "tenantId": "t-1"}
FIND, ERASE = f"person find --email {ADA}", f"person erase --email {ADA} --apply --by ann"
DEFERRAL = "INSERT INTO jobs_ops.deferrals (key, job_id) VALUES (%s, %s)"


@pytest.fixture
def desk(operator: Operator, jobs: Jobs, jobs_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setenv("JOB_QUEUE_DATABASE_URL", jobs_database_url)
    return operator


def counts(rows: Any, what: str = "found") -> dict[str, int]:
    return {row["place"]: row[what] for row in rows if row[what]}


def test_a_person_is_found_and_erased_from_what_is_over(desk: Operator, jobs: Jobs) -> None:
    job = jobs.failed(f"SMTPError: {ADA} refused", args=ARGS, queueing_lock=f"welcome:{ADA}")
    other = jobs.ended("succeeded", args={"email": f"x{ADA}"})
    for name, key in ((job, f"welcome:{ADA}"), (other, f"again:{ADA}"), (jobs.ended("aborted"), ADA)):
        jobs.database.execute(DEFERRAL, [key, name])
    expected = {"procrastinate_jobs": 1, "procrastinate_events": 1, "jobs_ops.deferrals": 3}
    assert counts(desk.json(FIND)) == expected
    assert counts(desk.json(f"{FIND} --tenant t-1")) == expected | {"jobs_ops.deferrals": 1}
    assert counts(desk.json(f"{FIND} --tenant t-2")) == {}

    assert counts(desk.run(f"{ERASE} -o json").rows, "erased") == expected

    assert desk.json(FIND) == []
    assert jobs.of(job, "args") == {
        "to": {"email": "erased", "firstName": "erased"},
        "orderId": 7,
        "tenantId": "t-1",
    }
    assert (jobs.of(job), jobs.of(job, "queueing_lock")) == ("failed", "welcome:erased")
    (event,) = jobs.database.execute(
        "SELECT error, error_traceback FROM procrastinate_events WHERE error IS NOT NULL"
    ).fetchall()
    assert event[0] == "SMTPError: erased refused"
    assert ADA not in event[1]
    assert jobs.of(other, "args") == {"email": f"x{ADA}"}
    assert jobs.value("SELECT count(DISTINCT key) FROM jobs_ops.deferrals WHERE key LIKE '%%erased %%'") == 3


def test_what_is_still_to_be_done_is_left_and_reported(desk: Operator, jobs: Jobs) -> None:
    waiting, working = jobs.todo(args=ARGS), jobs.doing(jobs.worker(), args=ARGS)
    jobs.database.execute(DEFERRAL, [f"k:{ADA}", waiting])
    said = desk.run(f"{ERASE} -o json")
    assert said.code == 4
    assert counts(said.rows, "left") == {"procrastinate_jobs": 2, "jobs_ops.deferrals": 1}
    assert jobs.of(waiting, "args") == jobs.of(working, "args") == ARGS
    desk.run(f"jobs cancel {waiting}")
    jobs.database.execute("UPDATE procrastinate_jobs SET status = 'succeeded' WHERE id = %s", [working])
    assert desk.run(ERASE).code == 0
    assert desk.json(FIND) == []


def test_the_jobs_database_alone_is_looked_at(desk: Operator, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    jobs.ended("succeeded", args=ARGS)
    found = desk.run(f"{FIND} -o json")
    assert counts(found.rows) == {"procrastinate_jobs": 1}
    assert "DATABASE_URL is not set" in found.err
    assert desk.run(ERASE).code == 0
