"""What is kept between requests changes nothing of what gunicorn decides for each."""

from __future__ import annotations

import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser

from service.serving.connection import Exchange
from service.serving.request import Parser, keep_settings

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n"
ADDRESSES = [("127.0.0.1", 1), ("192.0.2.7", 1), ("10.1.2.3", 1), ("127.0.0.1", 2), "", b""]


def scheme(parser: type[RequestParser], cfg: Config, peer: object) -> str:
    """The scheme of a request from a peer that says `https`: it counts only if the peer is trusted."""
    return str(next(parser(cfg, Exchange(REQUEST), peer)).scheme)


@pytest.mark.parametrize("allowed", ["127.0.0.1", "10.0.0.0/8", "*", "192.0.2.7,10.0.0.0/8"])
def test_a_peer_is_trusted_as_gunicorn_does(allowed: str) -> None:
    """The same for each address, the first time and again, and with another configuration in the same process."""
    for names in (allowed, "198.51.100.1"):
        cfg = Config()
        cfg.set("forwarded_allow_ips", names)
        expected = [scheme(RequestParser, cfg, peer) for peer in ADDRESSES]
        keep_settings(cfg)
        assert [scheme(Parser, cfg, peer) for peer in ADDRESSES * 2] == expected * 2
    assert expected[0] == "http"
    assert expected[-1] == "https"


def test_settings_are_kept() -> None:
    """Each is what gunicorn would have looked up, those that it computes too."""
    cfg, kept = Config(), Config()
    for each in (cfg, kept):
        each.set("workers", 3)
        each.set("bind", "127.0.0.1:1")
    keep_settings(kept)
    assert {name: getattr(kept, name) for name in kept.settings} == {
        name: getattr(cfg, name) for name in cfg.settings
    }
    assert (kept.workers, kept.address, kept.is_ssl) == (3, cfg.address, cfg.is_ssl)
