"""Where Redis is: read from what an operator writes and from what a cluster answers, and shown without a login."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from worker_runtime.redis.address import RedisAddress, Server, read_sentinels
from worker_runtime.redis.cluster import Redirection, read_redirection, slot_of
from worker_runtime.settings.scale_out import HASH_TAG


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("redis://", Server("localhost")),
        ("redis://h:1/2", Server("h", 1, database=2)),
        ("rediss://u:p%40w@h", Server("h", username="u", password="p@w", tls=True)),
        ("redis://:p@[::1]:7", Server("::1", 7, password="p")),
    ],
)
def test_a_url_names_a_server(url: str, server: Server) -> None:
    assert Server.from_url(url) == server


@pytest.mark.parametrize(
    ("written", "servers"),
    [
        ("a, b:1 ,", (Server("a", 26379), Server("b", 1))),
        (":p%2Cw@a", (Server("a", 26379, password="p,w"),)),
        ("u:p@[::1]:5,[::1]", (Server("::1", 5, "u", "p"), Server("::1", 26379))),
        ("", ()),
    ],
)
def test_sentinels_are_hosts_with_a_port_or_the_usual_one(written: str, servers: tuple[Server, ...]) -> None:
    assert read_sentinels(written, tls=False) == servers
    assert all(server.tls for server in read_sentinels(written, tls=True))


@pytest.mark.parametrize("written", ["hush:x", "http://hush", "hush/3", ":hush@", "a,hush:99999"])
def test_what_is_no_sentinel_is_refused_and_not_repeated(written: str) -> None:
    with pytest.raises(ValueError, match="not host:port") as caught:
        read_sentinels(written, tls=False)
    assert "hush" not in str(caught.value)


def test_a_login_is_shown_to_nobody() -> None:
    server = Server("h", 1, "hush1", "hush2")
    for address in (
        RedisAddress(server),
        RedisAddress(server, cluster=True),
        RedisAddress(server, (Server("s", 2, password="hush3"),), "queues"),
    ):
        assert "hush" not in f"{address} {address!r}"
    assert str(RedisAddress(Server("::1", 1))) == "[::1]:1"


@pytest.mark.parametrize(
    ("error", "redirection"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirection(asking=False, host="127.0.0.1", port=6381)),
        ("ASK 3999 ::1:6381", Redirection(asking=True, host="::1", port=6381)),
        ("MOVED 3999 :6381", Redirection(asking=False, host="", port=6381)),
        ("NOPERM this user may not", None),
        ("ERR MOVED is a word here", None),
    ],
)
def test_redirections_are_told_from_errors(error: str, redirection: Redirection | None) -> None:
    assert read_redirection(error) == redirection


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        ("{intelliflow}:events", "intelliflow"),
        ("a{b}c{d}", "b"),
        ("{{b}}", "{b"),
        ("{}{b}", None),
        ("no tag", None),
        ("half {a", None),
    ],
)
def test_a_hash_tag_is_what_redis_takes_for_one(key: str, tag: str | None) -> None:
    assert bool(HASH_TAG.match(key)) == (tag is not None)
    assert slot_of(key) == slot_of(key.encode()) == key_slot((tag or key).encode())
