"""The schema `cron` as an operator uses it: pg_cron's functions, and schedules that are refused with a reason."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedded_stack.postgres import create_database, drop_database
from worker_runtime.cron import Crontab

if TYPE_CHECKING:
    from collections.abc import Iterator

VALID = [
    *(
        "* * * * *",
        "*/5 * * * *",
        "0 0 * * 1-5",
        "0 13 2 6 *",
        "0 12 $ * *",
        "5,10-20,30-50/7 */2 1,15 jan-MAR,12 mon-5",
    ),
    *(
        "0 0 * * 7",
        "0 0 29 2 *",
        "0 0 31 1,2 *",
        "0 0 30 2 1",
        "0 0 */30 2 *",
        "*/59 */23 */31 */12 */7",
        " 1\t2 3  4 5 ",
    ),
    *(
        "1 second",
        "1 seconds",
        " 30 sEcOnDs ",
        "59 seconds",
        "@hourly",
        "@DAILY",
        "@midnight",
        "@yearly",
        "007 * * * *",
    ),
]
INVALID = [
    ("", "it takes five fields (minute, hour, day of month, month, day of week), and has 0"),
    ("* * * *", "it takes five fields (minute, hour, day of month, month, day of week), and has 4"),
    ("* * * * * *", "it takes five fields (minute, hour, day of month, month, day of week), and has 6"),
    ("60 * * * *", "minute 60 is not between 0 and 59"),
    ("0-60 * * * *", "minute 0-60 is not between 0 and 59"),
    ("* 24 * * *", "hour 24 is not between 0 and 23"),
    ("* * 0 * *", "day of month 0 is not between 1 and 31"),
    ("* * * 13 *", "month 13 is not between 1 and 12"),
    ("* * * * 8", "day of week 8 is not between 0 and 7"),
    ("5-1 * * * *", "minute 5-1 runs backwards"),
    ("* * * * fri-sun", "day of week fri-sun runs backwards"),
    ("*/0 * * * *", "minute */0 has a step that is not between 1 and 59"),
    ("*/60 * * * *", "minute */60 has a step that is not between 1 and 59"),
    ("*/500000000 * * * *", "minute */500000000 has a step that is not between 1 and 59"),
    ("*/5000000000 * * * *", "minute */5000000000 is no number, name, range, or range with a step"),
    ("* 8/4 * * *", "hour 8/4 has a step but no range: write 8-23/4"),
    ("1,,2 * * * *", "minute has an empty entry between commas"),
    ("1, * * * *", "minute has an empty entry between commas"),
    ("jan * * * *", "minute jan has a name, and it takes numbers only"),
    (
        "* * * january *",
        "month january has a name, and it takes jan, feb, mar, apr, may, jun, jul, aug, sep, oct, nov, dec",
    ),
    (
        "* * * 1-jun5 *",
        "month 1-jun5 has a name, and it takes jan, feb, mar, apr, may, jun, jul, aug, sep, oct, nov, dec",
    ),
    ("* * * * jan", "day of week jan has a name, and it takes sun, mon, tue, wed, thu, fri, sat"),
    ("-1 * * * *", "minute -1 is no number, name, range, or range with a step"),
    ("* * $foo * *", "day of month $foo is no number, name, range, or range with a step"),
    ("* * 1,$ * *", "day of month $ is no number, name, range, or range with a step"),
    ("* * L * *", "day of month l has a name, and it takes numbers only"),
    ("* * ? * *", "day of month ? is no number, name, range, or range with a step"),
    ("* * * * 1#2", "day of week 1#2 is no number, name, range, or range with a step"),
    ("0 0 30 2 *", "day of month 30 comes in none of its months"),
    ("0 0 31 2,4,jun *", "day of month 31 comes in none of its months"),
    ("0 seconds", "0 seconds are not between 1 and 59"),
    ("60 seconds", "60 seconds are not between 1 and 59"),
    ("-1 seconds", "-1 seconds are not between 1 and 59"),
    ("1.5 seconds", "1.5 seconds are not between 1 and 59"),
    ("5 secondc", "it takes five fields (minute, hour, day of month, month, day of week), and has 2"),
    ("@reboot", "@reboot is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"),
    ("* * * * *\n", "day of week *\n is no number, name, range, or range with a step"),
]
COLUMNS = """
SELECT array_agg(attname || ' ' || format_type(atttypid, NULL) ORDER BY attnum) FROM pg_attribute
 WHERE attrelid = %s::regclass AND attnum > 0
"""


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def judge(migrated_template: tuple[str, str]) -> Iterator[psycopg.Connection[Any]]:
    """A database for all that only asks what is valid."""
    server_url, template = migrated_template
    name = f"judge_{uuid4().hex}"
    create_database(server_url, name, template=template)
    with psycopg.connect(server_url.rsplit("/", 1)[0] + f"/{name}", autocommit=True) as connection:
        yield connection
    drop_database(server_url, name)


def one(database: psycopg.Connection[Any], question: str, *about: Any) -> Any:
    row = database.execute(question.encode(), about).fetchone()
    assert row is not None
    return row[0]


def accepted(database: psycopg.Connection[Any], schedule: str) -> bool:
    try:
        database.execute("SELECT cron.check_schedule(%s)", [schedule])
    except psycopg.errors.InvalidParameterValue:
        return False
    return True


def read(schedule: str) -> bool:
    try:
        crontab = Crontab.read(schedule)
    except ValueError:
        return False
    return crontab.next(datetime(2026, 1, 1, tzinfo=UTC)) is not None


@pytest.mark.parametrize("schedule", VALID)
def test_a_valid_schedule_is_taken_and_can_be_read(judge: psycopg.Connection[Any], schedule: str) -> None:
    assert one(judge, "SELECT cron.schedule('it', %s, 'SELECT 1')", schedule) > 0
    assert one(judge, "SELECT schedule FROM cron.job WHERE jobname = 'it'") == schedule
    assert read(schedule)


@pytest.mark.parametrize(("schedule", "reason"), INVALID)
def test_an_invalid_schedule_is_refused_with_its_field_and_a_reason(
    judge: psycopg.Connection[Any], schedule: str, reason: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as error:
        judge.execute("SELECT cron.schedule('it', %s, 'SELECT 1')", [schedule])
    assert error.value.diag.message_primary == f"invalid schedule: {reason}"
    assert "'[1-59] seconds'" in str(error.value.diag.message_hint)
    assert not read(schedule)


FIELD = st.lists(
    st.tuples(
        st.sampled_from(["*", "0", "1", "5", "7", "12", "31", "59", "60", "jan", "SUN", "$", "", "l", "007"]),
        st.sampled_from(["", "", "-7", "-1", "-31", "-dec", "-"]),
        st.sampled_from(["", "", "/1", "/7", "/0", "/60", "/x", "/"]),
    ).map("".join),
    min_size=1,
    max_size=3,
).map(",".join)
# Mostly right, for one wrong field is enough.
MOSTLY = st.one_of(st.just("*"), st.sampled_from(["1", "*/2", "1-5", "$"]), FIELD)
SCHEDULE = st.one_of(
    st.lists(MOSTLY, min_size=5, max_size=5).map(" ".join),
    st.lists(FIELD, min_size=4, max_size=6).map("  ".join),
    st.tuples(
        st.sampled_from(["0", "1", "59", "60", "x", " 9"]), st.sampled_from([" seconds", "second", " Second"])
    ).map("".join),
    st.text("0123456789*/-,$ @abcdefghijlmnoprstuvy\t\n", max_size=24),
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEDULE)
def test_what_the_database_takes_the_ticker_can_read_and_nothing_else(
    judge: psycopg.Connection[Any], schedule: str
) -> None:
    assert accepted(judge, schedule) is read(schedule)


def test_the_columns_are_pg_cron_s(database: psycopg.Connection[Any]) -> None:
    assert one(database, COLUMNS, "cron.job") == [
        *("jobid bigint", "schedule text", "command text", "nodename text", "nodeport integer"),
        *("database text", "username text", "active boolean", "jobname text"),
    ]
    assert one(database, COLUMNS, "cron.job_run_details") == [
        *("jobid bigint", "runid bigint", "job_pid integer", "database text", "username text", "command text"),
        *("status text", "return_message text"),
        *("start_time timestamp with time zone", "end_time timestamp with time zone"),
    ]


def test_a_name_is_a_job_s_and_scheduling_it_again_changes_it(database: psycopg.Connection[Any]) -> None:
    first = one(database, "SELECT cron.schedule('it', '0 10 * * *', 'VACUUM')")
    database.execute("SELECT cron.alter_job(%s, active := false)", [first])
    assert one(database, "SELECT cron.schedule('it', '0 11 * * *', 'ANALYZE')") == first
    row = database.execute("SELECT schedule, command, active FROM cron.job WHERE jobid = %s", [first]).fetchone()
    assert row == ("0 11 * * *", "ANALYZE", True)
    nameless = [one(database, "SELECT cron.schedule('0 10 * * *', 'VACUUM')") for _ in range(2)]
    assert len({first, *nameless}) == 3


def test_jobs_are_removed_by_name_and_by_number_and_once(database: psycopg.Connection[Any]) -> None:
    first = one(database, "SELECT cron.schedule('it', '0 10 * * *', 'VACUUM')")
    second = one(database, "SELECT cron.schedule('0 10 * * *', 'VACUUM')")
    assert one(database, "SELECT cron.unschedule('it')") is True
    assert one(database, "SELECT cron.unschedule(%s::bigint)", second) is True
    assert one(database, "SELECT count(*) FROM cron.tick WHERE jobid IN (%s, %s)", first, second) == 0
    for again in ("'it'", "'it'::text", f"{second}::bigint"):
        with pytest.raises(psycopg.errors.RaiseException, match="could not find valid entry for job"):
            database.execute(f"SELECT cron.unschedule({again})".encode())


def test_a_job_is_altered_in_part(database: psycopg.Connection[Any]) -> None:
    job = one(database, "SELECT cron.schedule('it', '0 10 * * *', 'VACUUM')")
    database.execute("SELECT cron.alter_job(%s, '0 12 * * *')", [job])
    database.execute("SELECT cron.alter_job(job_id := %s, command := 'ANALYZE', active := false)", [job])
    row = database.execute(
        "SELECT schedule, command, active, username FROM cron.job WHERE jobid = %s", [job]
    ).fetchone()
    assert row == ("0 12 * * *", "ANALYZE", False, one(database, "SELECT current_user"))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="hour 25"):
        database.execute("SELECT cron.alter_job(%s, '0 25 * * *')", [job])
    with pytest.raises(psycopg.errors.RaiseException, match="no updates specified"):
        database.execute("SELECT cron.alter_job(%s)", [job])
    with pytest.raises(psycopg.errors.RaiseException, match="Job 99 does not exist"):
        database.execute("SELECT cron.alter_job(99, command := 'x')")


def test_a_row_that_is_written_by_hand_is_checked_too(database: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="five fields"):
        database.execute("INSERT INTO cron.job (schedule, command) VALUES ('whenever', 'VACUUM')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="minute 61"):
        database.execute("UPDATE cron.job SET schedule = '61 * * * *'")


def test_what_only_pg_cron_can_do_is_refused(database: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="needs pg_cron"):
        database.execute("SELECT cron.schedule_in_database('it', '0 10 * * *', 'VACUUM', 'elsewhere')")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="only jobs of database"):
        database.execute("SELECT cron.alter_job(1, database := 'elsewhere')")
    with pytest.raises(psycopg.errors.NullValueNotAllowed):
        database.execute("SELECT cron.schedule('it', NULL, 'VACUUM')")


def test_a_job_of_a_database_that_has_another_name_now_can_be_changed(database: psycopg.Connection[Any]) -> None:
    # Made in the template of which this database is a copy.
    assert one(database, "SELECT database <> current_database() FROM cron.job")
    database.execute("SELECT cron.alter_job(jobid, active := false) FROM cron.job")
    database.execute("SELECT cron.schedule(jobname, schedule, command) FROM cron.job")
    assert one(database, "SELECT active AND database = current_database() FROM cron.job")


def test_only_the_owner_uses_it_until_told_otherwise(database: psycopg.Connection[Any]) -> None:
    role = f"stranger_{random.randrange(10**9)}"
    database.execute(f"CREATE ROLE {role}".encode())
    try:
        for statement in ("SELECT * FROM cron.job", "SELECT cron.schedule('* * * * *', 'DROP TABLE mine')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                database.execute(f"SET ROLE {role}; {statement}".encode())
            database.execute("RESET ROLE")
        # Even with a door into the schema, nothing in it is open.
        database.execute(f"GRANT USAGE ON SCHEMA cron TO {role}; SET ROLE {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.execute("SELECT cron.schedule('* * * * *', 'DROP TABLE mine')")
        assert one(database, "SELECT fw_workflows_scheduled()") is True
    finally:
        database.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_what_was_due_before_a_job_began_is_done(database: psycopg.Connection[Any]) -> None:
    job = one(database, "SELECT cron.schedule('it', '* * * * *', 'SELECT 1')")
    age = "UPDATE cron.tick SET done_until = done_until - interval '1 day' WHERE jobid = %s"
    fresh = "SELECT done_until > now() - interval '1 minute' FROM cron.tick WHERE jobid = %s"
    database.execute(age, [job])
    database.execute("SELECT cron.schedule('it', '* * * * *', 'SELECT 2')")
    assert one(database, fresh, job) is False
    for change in ("schedule = '5 seconds'", "active = true"):
        database.execute("UPDATE cron.job SET active = false WHERE jobid = %s", [job])
        database.execute(age, [job])
        database.execute(f"UPDATE cron.job SET {change} WHERE jobid = {job}".encode())
        assert one(database, fresh, job) is True
