"""Against the examples that AWS publishes (its `aws-sig-v4-test-suite`), and against botocore."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from ingestion_worker.ocr.sigv4 import AwsKey, signed_headers

KEY = AwsKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1", "service")
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "headers", "body", "signature"),
    [
        ("GET", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "POST",
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
    ids=["get-vanilla", "post-vanilla", "post-x-www-form-urlencoded"],
)
def test_the_published_examples(method: str, headers: dict[str, str], body: bytes, signature: str) -> None:
    signed = signed_headers(KEY, method, "https://example.amazonaws.com/", headers, body, NOW.timestamp())

    assert signed["X-Amz-Date"] == "20150830T123600Z"
    assert signed["Authorization"].endswith(f"Signature={signature}")


@given(
    st.binary(max_size=64),
    st.sampled_from(["https://textract.eu-central-1.amazonaws.com/", "http://127.0.0.1:4566/", "http://proxy/a b/~c"]),
    st.one_of(st.none(), st.text("abc+/=", min_size=1, max_size=20)),
)
def test_botocore_signs_the_same(body: bytes, url: str, token: str | None) -> None:
    key = AwsKey("AKID", "secret/+", "eu-central-1", "textract", token)
    signed = signed_headers(key, "POST", url, {"X-Amz-Target": "T.D"}, body, NOW.timestamp())

    theirs = AWSRequest("POST", url, data=body, headers={k: v for k, v in signed.items() if k != "Authorization"})
    theirs.context["timestamp"] = signed["X-Amz-Date"]
    auth = SigV4Auth(Credentials("AKID", "secret/+", token), "textract", "eu-central-1")
    expected = auth.signature(auth.string_to_sign(theirs, auth.canonical_request(theirs)), theirs)

    assert signed["Authorization"].rpartition("=")[2] == expected
    assert ("X-Amz-Security-Token" in signed) is (token is not None)


def test_a_key_does_not_show_its_secret() -> None:
    assert KEY.secret not in repr(KEY)
