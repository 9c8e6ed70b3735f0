from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from dkim_verifier import tags_of, unfolded_fields, verifies
from notifications_worker.channels.dkim import DkimSigner, PrivateKey, body_hash, read_private_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dkim_verifier import PublicKey

# RFC 8463, appendix A: the keys ("brisbane" is RFC 8032's first) and the message with both signatures.
ED25519 = Ed25519PrivateKey.from_private_bytes(base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
RSA_PEM = """-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi
Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM
KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm
6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe
zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy
6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc
uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy
WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd
WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a
licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst
o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe
uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL
-----END RSA PRIVATE KEY-----
"""
RSA = read_private_key(RSA_PEM)
RFC_8463 = b"""DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
# RFC 6376, appendix A.2 (with erratum 3192: one space between the sentences) and C: both sides `simple`.
BRISBANE = serialization.load_der_public_key(
    base64.b64decode(
        "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSs"
        "q631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
    )
)
RFC_6376 = b"""DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")

MAIL = b"From: a@example.com\r\nTo: b@example.org\r\nSubject: hello\r\n  there\r\nDate: now\r\n\r\nbody  \r\n\r\n\r\n"
KEYS: Mapping[str, PrivateKey] = {"rsa-sha256": RSA, "ed25519-sha256": ED25519}


def signer(algorithm: str) -> DkimSigner:
    return DkimSigner("example.com", "mail2026", KEYS[algorithm])


@pytest.mark.parametrize(
    ("mail", "number", "key"),
    [(RFC_8463, 0, ED25519.public_key()), (RFC_8463, 1, RSA.public_key()), (RFC_6376, 0, BRISBANE)],
)
def test_the_verifier_of_these_tests_agrees_with_the_rfcs(mail: bytes, number: int, key: PublicKey) -> None:
    assert verifies(mail, number, key)
    assert not verifies(mail.replace(b"hungry", b"thirsty"), number, key)
    assert not verifies(mail.replace(b"dinner", b"supper"), number, key)


@pytest.mark.parametrize(("number", "key"), [(0, ED25519), (1, RSA)])
def test_the_signatures_of_rfc_8463_come_out(number: int, key: PrivateKey) -> None:
    head, _, body = RFC_8463.decode().partition("\r\n\r\n")
    fields = [(name, value) for name, _, value in (field.partition(":") for field in unfolded_fields(head))]
    printed = fields[number][1]
    unsigned = printed[: printed.index(" b=") + len(" b=")]
    names = [name.strip() for name in ["from", "to", "subject", "date", "message-id", "from", "subject", "date"]]
    signed = DkimSigner("football.example.com", "any", key).signature(fields[2:], names, unsigned)

    assert body_hash(body.encode()) == tags_of(printed)["bh"]
    assert base64.b64encode(signed).decode() == tags_of(printed)["b"]


@pytest.mark.parametrize("algorithm", KEYS)
def test_what_is_signed_verifies_and_the_mail_is_as_it_was(algorithm: str) -> None:
    signed = signer(algorithm).signed(MAIL, 1_767_225_600.9)
    tags = tags_of(unfolded_fields(signed.decode())[0].partition(":")[2])

    assert signed.endswith(MAIL)
    assert verifies(signed, 0, KEYS[algorithm].public_key())
    assert (tags["a"], tags["d"], tags["s"], tags["t"]) == (algorithm, "example.com", "mail2026", "1767225600")
    assert signer(algorithm).signed(MAIL, 1_767_225_600.9) == signed
    assert all(len(line) <= 78 for line in signed.split(b"\r\n"))


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize(
    "tampered", [b"From: eve@example.com\r\n", b"Subject: buy this\r\n", b"To: eve@example.com\r\n", b"Date: then\r\n"]
)
def test_no_second_header_can_be_added_on_the_way(algorithm: str, tampered: bytes) -> None:
    signed = signer(algorithm).signed(MAIL, 1.0)

    assert not verifies(tampered + signed, 0, KEYS[algorithm].public_key())
    assert not verifies(signed.replace(b"\r\n\r\n", b"\r\n" + tampered + b"\r\n", 1), 0, KEYS[algorithm].public_key())


def test_a_link_to_unsubscribe_cannot_be_changed_on_the_way() -> None:
    mail = b"List-Unsubscribe: <https://x>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" + MAIL
    signed = signer("ed25519-sha256").signed(mail, 1.0)
    names = tags_of(unfolded_fields(signed.decode())[0].partition(":")[2])["h"].split(":")

    assert {"List-Unsubscribe", "List-Unsubscribe-Post"} <= set(names)
    assert not verifies(signed.replace(b"https://x", b"https://y"), 0, ED25519.public_key())


@given(
    body=st.binary(max_size=200).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b"\r\n")),
    spaces=st.text(" \t", max_size=5),
    name=st.sampled_from(["Subject", "SUBJECT", "X-Other"]),
)
def test_whatever_the_mail_its_signature_verifies(body: bytes, spaces: str, name: str) -> None:
    mail = f"From:{spaces}a@example.com\r\n{name}{spaces}: one{spaces}\r\n {spaces}two\r\n\r\n".encode() + body

    assert verifies(signer("ed25519-sha256").signed(mail, 1.0), 0, ED25519.public_key())


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey, password: bytes | None = None) -> str:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden).decode()


def test_a_key_may_have_its_line_ends_written_out() -> None:
    assert isinstance(read_private_key(pem(ED25519).replace("\n", "\\n")), Ed25519PrivateKey)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hunter2", "not a private key in PEM"),
        (pem(ED25519, b"hunter2"), "without a password"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "neither an RSA nor an Ed25519 key"),
    ],
)
def test_what_is_no_key_is_told_without_showing_it(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_private_key(text)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
