"""A redacted text has no address and no secret, in any form and at any place."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.plugin.redaction import Redaction

TEXT = st.text(max_size=20)
IPV4 = st.ip_addresses(v=4).map(str)


def _forms_of_ipv6(address: IPv6Address) -> list[str]:
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    mixed = address.exploded[:30] + str(last)
    return [address.compressed, address.exploded, address.compressed.upper(), mixed, f"::ffff:{last}"]


IPV6 = (
    st.ip_addresses(v=6)
    .flatmap(lambda address: st.sampled_from(_forms_of_ipv6(address)))
    .filter(lambda text: any(map(str.isdigit, text)))
)
"""Beside a letter, an address without a digit looks like a name of C++ or Rust."""
MAC = st.binary(min_size=6, max_size=6).flatmap(
    lambda raw: st.sampled_from([raw.hex(":"), raw.hex("-"), raw.hex(":").upper(), _dotted(raw.hex())])
)
ADDRESS = st.one_of(IPV4, IPV6, MAC)
SURROUNDED = st.tuples(
    st.sampled_from(["", " ", "[", "ip=", "/", '"', "x", "src ", "@", "-", "\n"]),
    ADDRESS,
    st.sampled_from(["", " ", "]:80", "/64", "%eth0", ":443", ",", ".", '"', "z", "\n", "->"]),
)


def _dotted(text: str) -> str:
    return ".".join(text[start : start + 4] for start in range(0, 12, 4))


@given(st.lists(st.one_of(TEXT, SURROUNDED.map("".join)), max_size=6), st.lists(SURROUNDED, max_size=3))
def test_no_address_survives(others: list[str], addresses: list[tuple[str, str, str]]) -> None:
    text = " ".join([*others, *map("".join, addresses)])
    redacted = Redaction().text(text)
    for _, address, _ in addresses:
        assert address not in redacted
    assert not addresses_in(redacted)


@given(
    st.recursive(
        st.one_of(TEXT, SURROUNDED.map("".join), st.integers()),
        lambda each: st.lists(each) | st.dictionaries(SURROUNDED.map("".join), each),
        max_leaves=10,
    )
)
def test_no_address_survives_in_a_document(value: object) -> None:
    """Redact values and keys."""
    assert not addresses_in(json.dumps(Redaction().document(value), ensure_ascii=False))


def addresses_in(text: str) -> list[str]:
    """Find addresses by parsing each piece of the text, not by the patterns of the product."""
    found = []
    for match in re.finditer(r"[0-9A-Fa-f:.]+", text):
        piece, around = match[0], text[: match.start()][-1:] + text[match.end() :][:1]
        if not any(map(str.isdigit, piece)) and re.search(r"[^\W\d]", around):
            continue
        for parse in (IPv4Address, IPv6Address):
            try:
                parse(piece.strip("."))
            except ValueError:
                continue
            if piece.strip(".") != "::":
                found.append(piece)
    return found + re.findall(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}", text)


@pytest.mark.parametrize(
    "forms",
    [
        ["10.0.0.1", "ip-10-0-0-1", "10.0.0.1:80"],
        ["fd00::1", "FD00:0:0:0:0:0:0:1", "[fd00::1]:80"],
        ["aa:bb:cc:00:11:22", "AA-BB-CC-00-11-22", "aabb.cc00.1122"],
    ],
)
def test_all_forms_of_an_address_have_one_pseudonym(forms: list[str]) -> None:
    redaction = Redaction()
    found = {re.findall(r"<\w+ \d+>", redaction.text(form))[0] for form in forms}
    assert len(found) == 1
    other = redaction.text(forms[0].replace("1", "2"))
    assert not found & set(re.findall(r"<\w+ \d+>", other))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-30T15:04:34.123Z reconciled in 0.25 s",
        "Linux 6.18.44, v1.36.3, sha256:0123456789abcdef",
        "clsact/egress shop/web-7d4f9 10Mbit/s",
        "node-1: 12:34:56",
        "std::string core::panicking bad_alloc::add foo::Bar",
        "tokenbucket: 3 limits, tokenbucket-agent=1 tokenbucketnodes.tokenbucket.dev: denied",
    ],
)
def test_times_and_versions_stay(text: str) -> None:
    assert Redaction().text(text) == text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("token eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJr.c2ln was rejected", "eyJ"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "MIIE"),
        ("https://user:pass@registry/image", "user:pass"),
        ("GET /?password=hunter2&x=1", "hunter2"),
        ("uid 0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b"),
        ("password: hunter2", "hunter2"),
        ("password: correct hunter2", "hunter2"),
        ('{"db_password": "hunter2", "x": 1}', "hunter2"),
        ('{"msg": "{\\"password\\": \\"a\\\\\\"hunter2\\"}"}', "hunter2"),
        ('"secretKey":"a\\"hunter2"', "hunter2"),
        ("token: hunter2", "hunter2"),
        ("tokenbucket token=hunter2", "hunter2"),
        ("agent --token hunter2 --x", "hunter2"),
        ("agent --db-password 'a hunter2'", "hunter2"),
        ("Authorization: Token hunter2", "hunter2"),
        ("DB_PASSWORD='a hunter2' x", "hunter2"),
        ("AWS_SECRET_ACCESS_KEY=hunter2", "hunter2"),
        ("key AKIAIOSFODNN7EXAMPLE was used", "AKIA"),
        ("clone with ghp_0123456789abcdefghij", "0123456789"),
        ("https://hunter2@host/x", "hunter2"),
        ("https://u:p@hunter2@host/x", "hunter2"),
    ],
)
def test_secrets_and_uids_do_not_survive(text: str, secret: str) -> None:
    """Redact uids, which give access to live figures."""
    assert secret not in Redaction().text(text)


def test_values_of_the_environment_and_of_secret_fields_are_redacted() -> None:
    pod = {
        "metadata": {
            "managedFields": [{"x": 1}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "s3cret"},
        },
        "spec": {
            "containers": [
                {
                    "env": [
                        {"name": "HTTPS_PROXY", "value": "s3cret"},
                        {"name": "NODE", "valueFrom": {"fieldRef": {}}},
                    ]
                }
            ]
        },
        "apiToken": "s3cret",
    }
    redacted = json.dumps(Redaction().document(pod))
    assert "s3cret" not in redacted
    assert "HTTPS_PROXY" in redacted
    assert "fieldRef" in redacted


def test_a_secret_does_not_survive_at_any_depth_below_its_name() -> None:
    value = {
        "password": {"value": "s3cret", "list": [{"x": "s3cret"}]},
        "args": ["--x", "1", "--auth-token", "s3cret", "--token=s3cret", "last"],
        "tokenbucket.dev/x": "kept",
    }
    redacted = json.dumps(Redaction().document(value))
    assert "s3cret" not in redacted
    assert '"--x", "1"' in redacted
    assert "last" in redacted
    assert "kept" in redacted
