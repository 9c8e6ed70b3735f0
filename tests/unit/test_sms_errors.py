from __future__ import annotations

import pytest

from notifications_worker.channels.sms_errors import ERRORS, ErrorClass, MalformedTable, known_error, read_table

SOURCE = "a:\n  source: https://example.com/{code}\n"
# The classes that the facts of the providers demand.
DEMANDED = {
    ErrorClass.REJECTED: [21211, 21214, 21217, 21614, 21612, 21408, 21635, 21602, 21617, 21619, 30004, 30005, 30006],
    ErrorClass.OPTED_OUT: [21610],
    ErrorClass.MISCONFIGURED: [20003, 20005, 20404, 21212, 21603, 21606, 21608, 30002, 21660, 21703, 21704],
    ErrorClass.RATE_LIMITED: [20429, 14107, 30022],
    ErrorClass.BUSY: [21611, 30001, 30008],
    ErrorClass.UNKNOWN: [20500, 20503],
}


def test_the_table_is_complete() -> None:
    for kind, codes in DEMANDED.items():
        for code in codes:
            assert ERRORS["twilio", str(code)].kind is kind, code
    assert ERRORS["messagebird", "25"].kind is ErrorClass.MISCONFIGURED
    assert {provider for provider, _ in ERRORS} == {"twilio", "messagebird"}
    assert {error.kind for error in ERRORS.values()} == set(ErrorClass)


def test_every_line_says_what_it_means_and_where_that_is_from() -> None:
    for (provider, code), error in ERRORS.items():
        assert error.meaning == error.meaning.strip() != "", (provider, code)
        assert error.source.startswith("https://")
    assert ERRORS["twilio", "21610"].source.endswith("/21610")


def test_the_most_telling_code_wins() -> None:
    assert known_error("messagebird", "10 originator", "10") == ERRORS["messagebird", "10 originator"]
    assert known_error("messagebird", "10 body", "10") == ERRORS["messagebird", "10"]
    assert known_error("twilio", "1", None) is None


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (SOURCE + "  rejected:\n    1: bad\n  busy:\n    1: bad\n", "a 1 is in two classes"),
        (SOURCE + "  rejected:\n    1: bad\n    1: worse\n", "1 is there twice"),
        (SOURCE + "  broken:\n    1: bad\n", "a broken is no class; allowed: rejected, opted_out"),
        (SOURCE + "  rejected:\n    1:\n", "a 1 has no meaning"),
        ("a:\n  rejected:\n    1: bad\n", "a has no source"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(table: str, complaint: str) -> None:
    with pytest.raises(MalformedTable, match=complaint):
        read_table(table)
