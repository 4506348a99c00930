from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dskd_export.errors import UsageError
from dskd_export.fleet.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://orin", Address("orin")),
        ("ssh://user@Orin", Address("Orin", "user")),
        ("ssh://user@10.0.0.7:2222/", Address("10.0.0.7", "user", 2222)),
        ("ssh://user@[fe80::1]:22", Address("fe80::1", "user", 22)),
        ("ssh://user@[fe80::1%eth0]", Address("fe80::1%eth0", "user")),
        ("ssh://build-user@orin.lab.example:65535", Address("orin.lab.example", "build-user", 65535)),
        ("ssh://a_b.c@10.0.0.7", Address("10.0.0.7", "a_b.c")),
        ("local", None),
    ],
)
def test_what_is_taken(text: str, address: Address | None) -> None:
    assert parse_address(text) == address
    if address is not None:
        assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("orin", "ssh://", "ssh://user:secret@orin", "ssh://orin/home", "ssh://orin:high"),
        *("ssh://-oProxyCommand=x", "ssh://-l@orin", "ssh://a b", "ssh://orin?x", "http://orin", "", "ssh://$(x)"),
        *("ssh://..", "ssh://.", "ssh://user@..", "ssh://.orin", "ssh://a..b", "ssh://..@orin", "ssh://orin.."),
        *("ssh://user@", "ssh://@orin", "ssh://@", "ssh://user@:22", "ssh://[]", "ssh://[..]", "ssh://[orin]"),
        *("ssh://[fe80::1%..]", "ssh://[fe80::1", "ssh://fe80::1", "ssh://user@-oProxyCommand=x", "ssh://a@b@c"),
        *(
            "ssh://orin:",
            "ssh://orin:0",
            "ssh://orin:65536",
            "ssh://orin:-22",
            "ssh://orin:22x",
            "ssh://orin:\u0662",
        ),
        *(
            "ssh://or\nin",
            "ssh://orin\n",
            "ssh://or\tin",
            " ssh://orin",
            "ssh://orin ",
            "ssh://orin\0",
            "ssh://\x1b",
        ),
        *(
            "ssh://user:secret@orin:high",
            "ssh://user:secret@",
            "user:secret@orin",
            "ssh://:secret@o",
            "SSH://orin",
        ),
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--on") as refused:
        parse_address(text)
    assert refused.value.exit_code == 2
    assert "secret" not in str(refused.value)


@given(st.text(max_size=30))
def test_no_text_becomes_an_option_of_ssh(text: str) -> None:
    try:
        address = parse_address(f"ssh://{text}")
    except UsageError:
        return
    assert address is not None
    assert not address.login.startswith("-")
    assert not set(address.login) & set(" '\"\\$`;|&<>()\n\0")
    assert "/" not in address.name
    assert not address.host.startswith(".")
    assert ".." not in address.host
