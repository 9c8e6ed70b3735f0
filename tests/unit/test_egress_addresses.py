"""Which addresses a stranger's URL may lead to. The list is written from the RFCs, not from the product's."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_runtime.egress.addresses import AddressRules, EgressRefused, read_url

PUBLIC_ONLY = AddressRules()

REFUSED = {
    "RFC 1122 this network": ["0.0.0.0", "0.255.255.255"],
    "RFC 1122 loopback": ["127.0.0.1", "127.255.255.254"],
    "RFC 1918": ["10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"],
    "RFC 6598 carrier-grade NAT": ["100.64.0.0", "100.127.255.255"],
    "RFC 3927 link-local, where clouds keep credentials": ["169.254.0.1", "169.254.169.254", "169.254.170.2"],
    "RFC 6890 IETF protocol assignments": ["192.0.0.1", "192.0.0.170"],
    "RFC 5737 documentation": ["192.0.2.1", "198.51.100.7", "203.0.113.255"],
    "RFC 7526 6to4 relays": ["192.88.99.1"],
    "RFC 2544 benchmarks": ["198.18.0.1", "198.19.255.255"],
    "RFC 5771 multicast": ["224.0.0.1", "239.255.255.250"],
    "RFC 1112 reserved, RFC 919 broadcast": ["240.0.0.1", "255.255.255.255"],
    "Azure's host service": ["168.63.129.16"],
    "RFC 4291 unspecified, loopback, IPv4-compatible": ["::", "::1", "::127.0.0.1", "::8.8.8.8"],
    "RFC 4291 IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1"],
    "RFC 6052 and 8215 NAT64": ["64:ff9b::7f00:1", "64:ff9b::8.8.8.8", "64:ff9b:1::1"],
    "RFC 6666 discard": ["100::1"],
    "RFC 2928 IETF, Teredo, ORCHID": ["2001::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::1"],
    "RFC 3849 and 9637 documentation": ["2001:db8::1", "3fff::1", "3fff:fff::1"],
    "RFC 3056 6to4": ["2002:7f00:1::", "2002:a00:1::1"],
    "RFC 9602 segment routing": ["5f00::1"],
    "RFC 4193 unique local": ["fc00::1", "fd12:3456:789a::1", "fd00:ec2::254"],
    "RFC 4291 link-local, RFC 3879 site-local": ["fe80::1", "febf::1", "fec0::1"],
    "RFC 4291 multicast": ["ff02::1", "ff0e::1"],
}
REACHED = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
    "168.63.129.15", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.1", "192.167.255.255",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8", "2001:4860:4860::8888", "2606:4700::1111",
    "2a00:1450::1", "2001:200::1", "2003::1", "3ffe::1",
]  # fmt: skip


@pytest.mark.parametrize(("why", "addresses"), REFUSED.items(), ids=list(REFUSED))
def test_a_special_address_is_not_reached(why: str, addresses: list[str]) -> None:
    reached = [address for address in addresses if PUBLIC_ONLY.admit((address, 443), only_listed=False)]
    assert not reached


@pytest.mark.parametrize("address", REACHED)
def test_a_public_address_is_reached_but_not_where_only_listed_ones_are(address: str) -> None:
    assert PUBLIC_ONLY.admit((address, 443), only_listed=False)
    assert not PUBLIC_ONLY.admit((address, 443), only_listed=True)


def test_a_listed_network_is_reached_in_whichever_way_it_is_written() -> None:
    rules = AddressRules.of(["10.1.0.0/16", "fd00::/8"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1"):
        assert rules.admit((address, 8000), only_listed=True)
    for address in ("10.2.0.1", "127.0.0.1", "fe80::1"):
        assert not rules.admit((address, 443), only_listed=False)


def test_an_address_with_a_scope_is_never_reached() -> None:
    rules = AddressRules.of(["fe80::/10"])
    assert not rules.admit(("fe80::1%eth0", 443, 0, 0), only_listed=False)
    assert not rules.admit(("fe80::1", 443, 0, 2), only_listed=False)
    assert rules.admit(("fe80::1", 443, 0, 0), only_listed=False)


@given(st.ip_addresses())
def test_whatever_python_calls_private_is_not_reached(address: object) -> None:
    concrete = ip_address(str(address))
    if isinstance(concrete, IPv6Address):
        concrete = concrete.ipv4_mapped or concrete
    if concrete.is_private or concrete.is_multicast or concrete.is_reserved or concrete.is_link_local:
        assert not PUBLIC_ONLY.admit((str(concrete), 443), only_listed=False)


def test_each_end_of_each_refused_network_is_refused() -> None:
    for network in (
        ip_network("10.0.0.0/8"),
        ip_network("172.16.0.0/12"),
        ip_network("fc00::/7"),
        ip_network("ff00::/8"),
    ):
        for address in (network[0], network[-1]):
            assert not PUBLIC_ONLY.admit((str(address), 443), only_listed=False)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.com/", "not one with https"),
        ("file:///etc/passwd", "not one with https"),
        ("gopher://127.0.0.1:6379/_PING", "not one with https"),
        ("//example.com/", "not one with https"),
        ("example.com", "not one with https"),
        ("https:///path", "not one with https"),
        ("", "not one with https"),
        ("https://ada:secret@example.com/", "holds a login"),
        ("https://ada@example.com/", "holds a login"),
        ("https://@example.com/", "holds a login"),
        ("https://example.com:99999/", "cannot be read"),
        ("https://example.com:port/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://exa mple.com/", "holds a blank"),
        ("https://example.com/\r\nX: y", "holds a blank"),
        ("https://example.com\t/", "holds a blank"),
        ("https://example.com\\@127.0.0.1/", "holds a blank"),
        ("https://[fe80::1%25eth0]/", "scope"),
        ("https://[fe80::1%eth0]/", "scope"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, why: str) -> None:
    with pytest.raises(EgressRefused, match=why) as refused:
        read_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://example.com/hook?a=1", "https://example.com:8443/", "https://example.com:80/"]
)
def test_https_on_a_usual_port_goes_to_any_public_address(url: str) -> None:
    assert read_url(url).usual


@pytest.mark.parametrize(
    "url",
    ["https://example.com:444/", "https://example.com:6379/", "http://example.com/", "http://example.com:443/"],
)
def test_anything_else_goes_to_listed_addresses_only(url: str) -> None:
    assert not read_url(url).usual
