from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from typing import TYPE_CHECKING

import pytest

from embedded_stack import Mailbox

if TYPE_CHECKING:
    from pathlib import Path

LOGIN = ("worker", "secret")


def a_mail(subject: str = "Grüße") -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "from@sender.example", "to@receiver.example", subject
    mail.set_content("Schöne Grüße\n")
    return mail


def trusting(box: Mailbox) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(box.ca_file))


def send(box: Mailbox, mail: EmailMessage, login: tuple[str, str] | None = None) -> None:
    with smtplib.SMTP(box.host, box.port) as client:
        client.starttls(context=trusting(box))
        if login:
            client.login(*login)
        client.send_message(mail)


def test_a_mail_is_kept_as_it_came(mailbox: Mailbox) -> None:
    send(mailbox, a_mail())

    (mail,) = mailbox.messages
    assert (mail.sender, mail.recipients) == ("from@sender.example", ("to@receiver.example",))
    assert (mail.header("Subject"), mail.text.strip(), mail.header("X-Absent")) == ("Grüße", "Schöne Grüße", "")
    assert mail.received_at.tzinfo is not None


def test_nothing_is_accepted_before_starttls(mailbox: Mailbox) -> None:
    with smtplib.SMTP(mailbox.host, mailbox.port) as client, pytest.raises(smtplib.SMTPSenderRefused, match="STARTTLS"):
        client.send_message(a_mail())
    assert mailbox.messages == []


def test_its_certificate_is_nobody_elses(mailbox: Mailbox) -> None:
    with smtplib.SMTP(mailbox.host, mailbox.port) as client, pytest.raises(ssl.SSLCertVerificationError):
        client.starttls(context=ssl.create_default_context())


def test_implicit_tls() -> None:
    with Mailbox(security="implicit") as box:
        with smtplib.SMTP_SSL(box.host, box.port, context=trusting(box)) as client:
            client.send_message(a_mail())
        assert len(box.messages) == 1


@pytest.mark.filterwarnings("ignore:Session.login_data")
def test_a_login_is_required_where_one_is_set() -> None:
    with Mailbox(login=LOGIN) as box:
        with pytest.raises(smtplib.SMTPSenderRefused, match="Authentication required"):
            send(box, a_mail())
        with pytest.raises(smtplib.SMTPAuthenticationError):
            send(box, a_mail(), ("worker", "guessed"))
        send(box, a_mail(), LOGIN)
        assert len(box.messages) == 1


def test_it_comes_back_on_its_port_with_what_it_had(mailbox: Mailbox) -> None:
    send(mailbox, a_mail("first"))
    port = mailbox.port

    mailbox.stop()
    with pytest.raises(OSError, match="refused"):
        smtplib.SMTP(mailbox.host, port)
    mailbox.start()
    send(mailbox, a_mail("second"))

    assert mailbox.port == port
    assert [mail.header("Subject") for mail in mailbox.messages] == ["first", "second"]


def test_stopping_drops_who_is_connected(mailbox: Mailbox) -> None:
    with smtplib.SMTP(mailbox.host, mailbox.port) as client:
        client.starttls(context=trusting(mailbox))
        mailbox.stop()
        with pytest.raises((smtplib.SMTPServerDisconnected, OSError)):
            client.noop()
        mailbox.start()


async def test_waiting_ends_when_enough_has_arrived_or_says_how_much_has(mailbox: Mailbox) -> None:
    send(mailbox, a_mail())

    assert len(await mailbox.arrived(1)) == 1
    with pytest.raises(TimeoutError, match="1 of 2 mails"):
        await mailbox.arrived(2, seconds=0.05)
    mailbox.forget()
    assert mailbox.messages == []


def test_mails_are_written_to_a_folder_when_one_is_given(tmp_path: Path) -> None:
    with Mailbox(folder=tmp_path / "mails") as box:
        send(box, a_mail())
        assert (tmp_path / "mails" / "0001.eml").read_bytes() == box.messages[0].raw


def test_a_taken_port_is_an_error(mailbox: Mailbox) -> None:
    with pytest.raises(OSError, match="address already in use"):
        Mailbox(port=mailbox.port).start()
