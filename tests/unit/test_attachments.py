from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mails import LIMITS, RECIPIENT, composed, notification, parsed, refusal, stationery
from notifications_worker.channel import Circuit, NotAccepted
from notifications_worker.channels.attachments import in_base64
from notifications_worker.channels.email import EmailChannel
from notifications_worker.channels.smtp_pool import SmtpPool
from notifications_worker.channels.smtp_session import Relay
from worker_runtime.outcome import Defer, PermanentError
from worker_runtime.testing import job_for

if TYPE_CHECKING:
    from email.message import EmailMessage
    from pathlib import Path

    from notifications_worker.channels.email import Stationery

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PDF = b"%PDF-1.7\r\n.\r\n" + bytes(range(256)) * 10
FILES = {
    "in/a.pdf": PDF,
    "in/logo.png": PNG,
    "empty": b"",
    "in/mail.eml": b"From: x\n\nhi\n",
    "text": b"\n.\n\r\n-- \n",
}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Stationery:
    folder = tmp_path_factory.mktemp("objects")
    (folder / "in").mkdir()
    for key, content in FILES.items():
        (folder / key).write_bytes(content)
    return stationery(folder)


def limited(paper: Stationery, **limits: int) -> Stationery:
    changed = replace(LIMITS, **limits)
    return replace(paper, limits=changed, attachments=type(paper.attachments)(paper.attachments._store, changed))


def mail(paper: Stationery, *attachments: dict[str, Any], **content: Any) -> EmailMessage:
    return parsed(composed({"body": "Hello", "attachments": list(attachments), **content}, paper))


def kinds(message: Any) -> Any:
    kind = message.get_content_type()
    return (kind, [kinds(part) for part in message.iter_parts()]) if message.is_multipart() else kind


def sent(part: Any) -> bytes:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


def test_a_file_arrives_as_it_is_stored(paper: Stationery) -> None:
    message = mail(paper, *({"filename": "a", "storageKey": key} for key in FILES))
    text, *files = message.iter_parts()

    assert kinds(message)[0] == "multipart/mixed"
    assert text.get_content() == "Hello\n"
    assert [sent(file) for file in files] == list(FILES.values())
    assert {file.get_content_disposition() for file in files} == {"attachment"}


def test_text_then_html_with_what_it_shows_then_the_files(paper: Stationery) -> None:
    logo = {"filename": "logo.png", "storageKey": "in/logo.png", "inline": True, "contentId": "logo"}
    more = logo | {"contentId": "more@example.com"}
    pdf = {"filename": "a.pdf", "storageKey": "in/a.pdf"}
    message = mail(paper, pdf, logo, more, htmlBody='<img src="cid:logo">')

    html = ("multipart/related", ["text/html", "image/png", "image/png"])
    assert kinds(message) == (
        "multipart/mixed",
        [("multipart/alternative", ["text/plain", html]), "application/pdf"],
    )
    shown = [part for part in message.walk() if part.get_content_disposition() == "inline"]
    assert [part["Content-ID"] for part in shown] == ["<logo>", "<more@example.com>"]


def test_what_html_would_show_is_a_file_without_html(paper: Stationery) -> None:
    logo = {"filename": "logo.png", "storageKey": "in/logo.png", "inline": True, "contentId": "logo"}

    assert kinds(mail(paper, logo)) == ("multipart/mixed", ["text/plain", "image/png"])


def test_a_resend_is_the_same_bytes_and_other_files_are_not(paper: Stationery) -> None:
    def bytes_with(key: str) -> bytes:
        content = {"body": "b", "htmlBody": "<p>b</p>", "attachments": [{"filename": "a", "storageKey": key}]}
        return composed(content, paper).content

    assert bytes_with("in/a.pdf") == bytes_with("in/a.pdf")
    assert bytes_with("in/a.pdf") != bytes_with("in/logo.png")


def test_no_separator_begins_like_another(paper: Stationery) -> None:
    logo = {"filename": "logo.png", "storageKey": "in/logo.png", "inline": True, "contentId": "logo"}
    message = mail(paper, logo, {"filename": "a", "storageKey": "text"}, htmlBody="<p>")
    separators = [part.get_boundary() or "" for part in message.walk() if part.is_multipart()]

    assert len(separators) == 3
    assert not any(one != other and other.startswith(one) for one in separators for other in separators)


@pytest.mark.parametrize(
    ("attachment", "kind"),
    [
        ({"filename": "a.pdf"}, "application/pdf"),
        ({"filename": "A.PDF"}, "application/pdf"),
        ({"filename": "a.pdf", "contentType": "Text/CSV"}, "text/csv"),
        ({"filename": "a"}, "application/octet-stream"),
        ({"filename": "a.eml"}, "application/octet-stream"),
        ({"filename": "a", "contentType": "message/rfc822"}, "application/octet-stream"),
        ({"filename": "a", "contentType": "multipart/mixed"}, "application/octet-stream"),
        ({"filename": "a.html"}, "text/html"),
    ],
)
def test_the_type_is_the_given_or_the_names(paper: Stationery, attachment: dict[str, Any], kind: str) -> None:
    message = mail(paper, {"storageKey": "in/mail.eml", **attachment})
    _, file = message.iter_parts()

    assert file.get_content_type() == kind
    assert sent(file) == FILES["in/mail.eml"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Angebot für Käse.pdf", "Angebot für Käse.pdf"),
        ("見積書" * 40 + ".pdf", "見積書" * 40 + ".pdf"),
        ('a"b;c\\', None),
        ('quo"te; x=y.pdf', 'quo"te; x=y.pdf'),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\a.pdf", "a.pdf"),
        ("👨‍👩‍👧.jpg", "👨‍👩‍👧.jpg"),
        ("%41*0=''.txt", "%41*0=''.txt"),
        (" a.pdf ", "a.pdf"),
    ],
)
def test_a_name_travels_whatever_its_letters(paper: Stationery, given: str, name: str | None) -> None:
    if name is None:
        assert refusal_of(paper, {"filename": given}).code == "INVALID_PAYLOAD"
        return
    message = mail(paper, {"filename": given, "storageKey": "text"})
    _, file = message.iter_parts()

    assert file.get_filename() == name


def refusal_of(paper: Stationery, attachment: dict[str, Any]) -> PermanentError:
    return refusal({"body": "b", "attachments": [{"storageKey": "text", "filename": "a", **attachment}]}, paper)


@pytest.mark.parametrize(
    ("attachment", "reason"),
    [
        ({"storageKey": "nope"}, "ATTACHMENT_MISSING: content.attachments[0] (a) is not in the object store"),
        ({"storageKey": "../secret"}, "INVALID_PAYLOAD: content.attachments[0] (a): it is empty or too long"),
        ({"storageKey": None}, "INVALID_PAYLOAD: content.attachments[0] (a) needs either storageKey or url"),
        ({"url": "s3://x/y"}, "INVALID_PAYLOAD: content.attachments[0] (a) needs either storageKey or url"),
        (
            {"storageKey": None, "url": "https://example.com/a.pdf"},
            "INVALID_PAYLOAD: content.attachments[0] (a): the URL is not one of an object under STORAGE_URL",
        ),
        ({"inline": True}, "INVALID_PAYLOAD: content.attachments[0] is inline and has no contentId"),
        ({"filename": "a\r\nBcc: x"}, "INVALID_PAYLOAD: content.attachments[0].filename holds a line break"),
        ({"filename": "fdp.\u202ecod"}, "INVALID_PAYLOAD: content.attachments[0].filename holds a line break"),
        ({"filename": "a/.."}, "INVALID_PAYLOAD: content.attachments[0].filename is not the name of a file"),
    ],
)
def test_what_cannot_be_attached_is_named(paper: Stationery, attachment: dict[str, Any], reason: str) -> None:
    assert str(refusal_of(paper, attachment)).startswith(reason)


@pytest.mark.parametrize(
    "wrong",
    [
        {"filename": ""},
        {},
        {"filename": "a", "contentType": "text/html; charset=x"},
        {"filename": "a", "contentType": "text\r\nX: y/html"},
        {"filename": "a", "contentId": "a>\r\nX: y"},
        {"filename": "a", "contentId": "a b"},
    ],
)
def test_what_is_no_attachment_is_refused_by_the_schema(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        notification({"body": "b", "attachments": [wrong]})


def test_one_file_too_large_is_refused_before_it_is_read(paper: Stationery) -> None:
    attachments = [{"filename": "a", "storageKey": "text"}, {"filename": "b.pdf", "storageKey": "in/a.pdf"}]
    error = refusal({"body": "b", "attachments": attachments}, limited(paper, attachment=len(PDF) - 1))

    assert str(error) == (
        f"ATTACHMENT_TOO_LARGE: content.attachments[1] (b.pdf) has {len(PDF)} bytes;"
        f" EMAIL_MAX_ATTACHMENT_BYTES allows {len(PDF) - 1}"
    )


def test_files_that_are_too_large_together_are_refused_before_they_are_read(paper: Stationery) -> None:
    one = {"filename": "a.pdf", "storageKey": "in/a.pdf"}
    error = refusal({"body": "b", "attachments": [one, one, one]}, limited(paper, message=3 * in_base64(len(PDF)) - 1))

    assert error.code == "ATTACHMENT_TOO_LARGE"
    assert "content.attachments[2] (a.pdf)" in str(error)
    assert "EMAIL_MAX_MESSAGE_BYTES" in str(error)


def test_a_mail_too_large_for_its_words_is_refused(paper: Stationery) -> None:
    assert refusal({"body": "b" * 70_000}, limited(paper, message=64 * 1024)).code == "MESSAGE_TOO_LARGE"


@given(size=st.integers(0, 5000))
def test_the_room_a_file_takes_is_known_before_it_is_there(size: int) -> None:
    import base64  # noqa: PLC0415

    assert in_base64(size) >= len(base64.encodebytes(b"x" * size).replace(b"\n", b"\r\n"))


async def test_a_store_that_is_away_costs_nobody_anything(tmp_path: Path) -> None:
    channel = EmailChannel(SmtpPool(Relay("127.0.0.1", 1, "off")), stationery(tmp_path / "gone"))
    content = {"body": "b", "attachments": [{"filename": "a", "storageKey": "a"}]}
    with pytest.raises(NotAccepted) as caught:
        await channel.compose(job_for(notification(content)))
    channel.close()

    assert isinstance(caught.value.verdict.outcome, Defer)
    assert caught.value.verdict.outcome.code == "STORAGE_UNAVAILABLE"
    assert caught.value.verdict.circuit is Circuit.UNTOLD
    assert caught.value.verdict.unsent


async def test_megabytes_leave_the_event_loop_alone(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 8_000_000)
    channel = EmailChannel(SmtpPool(Relay("127.0.0.1", 1, "off")), stationery(tmp_path))
    job = job_for(notification({"body": "b", "attachments": [{"filename": "a", "storageKey": "big"}]}))
    composing = asyncio.create_task(channel.compose(job))
    turns = 0
    while not composing.done():
        await asyncio.sleep(0)
        turns += 1
    channel.close()

    assert len((await composing).content) > 8_000_000 * 4 / 3
    assert turns > 10


NAMES = st.text(min_size=1, max_size=60)


@given(filename=NAMES, content_id=NAMES, content_type=NAMES, subject=st.text(max_size=60))
def test_nothing_a_job_says_becomes_a_header(
    paper: Stationery, filename: str, content_id: str, content_type: str, subject: str
) -> None:
    attachment = {"filename": filename, "storageKey": "text", "contentType": content_type, "contentId": content_id}
    content = {"body": "b", "subject": subject, "attachments": [attachment]}
    try:
        message = parsed(composed(content, paper))
    except (PermanentError, ValidationError):
        return  # Either end is right, depending on the text.
    _, file = message.iter_parts()
    assert set(file.keys()) <= {"Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "MIME-Version"}
    assert message["To"] == RECIPIENT
    assert message["Bcc"] is None
    assert sent(file) == FILES["text"]
