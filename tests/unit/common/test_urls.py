"""One voice server has many spellings, and what is no URL is compared as it stands."""

from __future__ import annotations

import random

import pytest

from understudy.common import urls
from understudy.common.urls import normalised, same_server


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://panda:8772", "http://panda:8772"),
        ("HTTP://Panda:8772/", "http://panda:8772"),
        (" http://panda.:8772// ", "http://panda:8772"),
        ("http://panda:80", "http://panda"),
        ("https://panda:443/", "https://panda"),
        ("http://panda:443", "http://panda:443"),
        ("http://somebody:secret@panda:8772/?voice=a#top", "http://panda:8772"),
        ("http://panda/tts/", "http://panda/tts"),
        ("http://Pförtner.local", "http://xn--pfrtner-b1a.local"),
        ("http://[FD00:0:0::0007]:08772/", "http://[fd00::7]:8772"),
        ("http://[FE80::1%eth0]:8772/", "http://[fe80::1%eth0]:8772"),
        ("http://[fe80::1%25eth0]:8772", "http://[fe80::1%eth0]:8772"),
    ],
)
def test_a_url_has_one_spelling(url: str, expected: str) -> None:
    assert normalised(url) == expected
    assert normalised(expected) == expected
    assert same_server(url, expected)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://panda:8772", "http://panda:8773"),
        ("http://panda", "https://panda"),
        ("http://panda/a", "http://panda/b"),
        ("http://[fe80::1%eth0]:8772", "http://[fe80::1%eth1]:8772"),
        ("http://panda:8772", ""),
    ],
)
def test_other_servers_stay_others(one: str, other: str) -> None:
    assert not same_server(one, other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "panda",
        "panda:8772",
        "//panda",
        "http://",
        "http://fd00::7:8772",
        "http://panda:99999",
        "http://two words",
        "mailto:somebody@panda",
        "\0\ud800\n%]",
        "http://[%eth0]",
        "http://panda%eth0]",
    ],
)
def test_what_is_no_url_is_returned_as_it_is(text: str) -> None:
    assert normalised(text) == text
    assert same_server(text, text)


@pytest.mark.parametrize(
    ("host", "url", "endpoint"),
    [
        ("panda", "http://panda:8772", ("panda", 8772)),
        ("10.0.0.7", "http://10.0.0.7:8772", ("10.0.0.7", 8772)),
        ("fd00::7", "http://[fd00::7]:8772", ("fd00::7", 8772)),
        ("[fd00::7]", "http://[fd00::7]:8772", ("fd00::7", 8772)),
        ("fe80::1%eth0", "http://[fe80::1%eth0]:8772", ("fe80::1%eth0", 8772)),
    ],
)
def test_a_host_in_a_url_and_out_of_it(host: str, url: str, endpoint: tuple[str, int]) -> None:
    assert f"http://{urls.url_host(host)}:8772" == url
    assert urls.endpoint(f"{url}/tts") == endpoint


def test_a_port_that_is_not_given_is_the_schemes() -> None:
    assert urls.endpoint("http://panda") == ("panda", 80)
    assert urls.endpoint("https://panda") == ("panda", 443)


@pytest.mark.parametrize("url", ["panda:8772", "http://fd00::7:8772", "ftp://panda", "x://panda"])
def test_what_is_no_base_url(url: str) -> None:
    with pytest.raises(ValueError, match="is no base URL, such as http://panda:8772 or"):
        urls.endpoint(url)


def test_no_text_raises_an_error() -> None:
    draw = random.Random(7)
    pieces = [
        *"http://[]:%@.?#\\ \t\0é٣",
        "\ud800",
        "fe80::1",
        "%25",
        "xn--",
        "99999999999",
        "a" * 70,
    ]
    for _ in range(5000):
        text = "".join(draw.choices(pieces, k=draw.randrange(1, 12)))
        for url in (text, f"http://{text}", f"http://[{text}]:1"):
            assert normalised(normalised(url)) == normalised(url), repr(url)
