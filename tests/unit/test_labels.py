"""What a guest is called in DNS."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libvirt_loopnet.addresses.labels import dns_label, host_names, with_suffix
from libvirt_loopnet.model import Guest
from tests.unit.test_plan import NETWORKS


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("vm1", "vm1"),
        ("Web Server_1.example", "web-server-1-example"),
        ("x'y", "x-y"),
        ("-a--b-", "a-b"),
        ("a" * 62 + "-b", "a" * 62),
        ("", ""),
        ("...", ""),
        # as IDNA's own tables and registries have them
        ("bücher", "xn--bcher-kva"),
        ("BÜCHER", "xn--bcher-kva"),
        ("bu\u0308cher", "xn--bcher-kva"),
        ("faß", "xn--fa-hia"),
        ("例え", "xn--r8jz45g"),
        ("испытание", "xn--80akhbyknj4f"),
        ("ä-ö", "xn----zfa9c"),
        ("büro 1", "xn--bro-1-kva"),
        ("xn--bcher-kva", "xn--bcher-kva"),
        ("xn--" + "a" * 59, "xn--" + "a" * 59),
        ("ｖｍ１", "vm1"),
        ("🙂", ""),
        ("vm🙂1", "vm-1"),
        ("\u0301x", "x"),
    ],
)
def test_labels(name: str, label: str) -> None:
    assert dns_label(name) == label


@given(st.text(max_size=80))
def test_any_name_gives_a_label_that_stays(name: str) -> None:
    label = dns_label(name)
    assert re.fullmatch(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?", label)
    assert dns_label(label) == label


@given(st.text(alphabet=st.characters(whitelist_categories=["Ll", "Lo"]), min_size=1, max_size=10))
def test_what_goes_in_comes_out(name: str) -> None:
    """Punycode is no hash: the label tells the name, as far as DNS has it."""
    label = dns_label(name)
    if label.startswith("xn--") and not name.isascii():
        assert dns_label(label[4:].encode().decode("punycode")) == label


@pytest.mark.parametrize(
    ("label", "numbered"),
    [
        ("vm1", "vm1-7"), ("a" * 63, "a" * 61 + "-7"), ("xn--bro-hoa", "xn--bro-7-kva"),
        ("xn--a-99999999", "xn--a-99999999-7"),
    ],
)  # fmt: skip
def test_numbered(label: str, numbered: str) -> None:
    assert with_suffix(label, "-7") == numbered


@given(st.text(max_size=70), st.integers(1, 99999))
def test_any_label_is_numbered(name: str, number: int) -> None:
    label = with_suffix(dns_label(name) or "x", f"-{number}")
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label)


def test_names_for_the_hosts_file() -> None:
    network = NETWORKS[0]
    named = Guest(network.name, "52:54:00:00:00:02", 2, "vm2")
    guests = [named, named._replace(mac="52:54:00:00:00:03", number=3, name="")]
    assert host_names([network], guests) == ((network.loop_address(2), (f"vm2.{network.domain}",)),)
