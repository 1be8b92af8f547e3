"""The rules of documents, without HTTP (draft-ietf-oauth-client-id-metadata-document-02)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from service.protocol.client_documents import (
    LONGEST_S,
    MOST_CHARS,
    SHORTEST_S,
    DocumentHosts,
    DocumentRefused,
    fresh_s,
    parse_document_url,
    read_document,
)
from service.settings.strangers import client_documents
from tests.support.cases import each_of

URL = "https://client.example.com/oauth/client.json"


@each_of(
    ("client_id", "host", "port"),
    [
        (URL, "client.example.com", None),
        ("https://Client.Example.COM/a", "client.example.com", None),
        ("https://client.example.com:8443/a", "client.example.com", 8443),
        ("https://client.example.com:443/a", "client.example.com", None),
        ("https://client.example.com/a?b=c&d=/../", "client.example.com", None),
        ("https://client.example.com/a/", "client.example.com", None),
        ("https://client.example.com/...", "client.example.com", None),
        ("https://client.example.com/a.b/.c/%2ed", "client.example.com", None),
        ("https://127.0.0.1/a", "127.0.0.1", None),
        ("https://[::1]:8443/a", "[::1]", 8443),
        ("https://client.example.com/".ljust(MOST_CHARS, "x"), "client.example.com", None),
    ],
)
def test_a_url_of_a_document(client_id: str, host: str, port: int | None) -> None:
    """draft §3: https with a path; a query and a port are allowed."""
    url = parse_document_url(client_id)
    assert url is not None and (url.host, url.port) == (host, port)


@each_of(
    "client_id",
    [
        "wiki",
        "http://client.example.com/a",
        "HTTPS://client.example.com/a",
        "https://client.example.com",
        "https://client.example.com/",
        "https://client.example.com/?a",
        "https://client.example.com?a",
        "https:///a",
        "https://client.example.com/a#",
        "https://client.example.com/a#f",
        "https://user@client.example.com/a",
        "https://user:word@client.example.com/a",
        "https://@client.example.com/a",
        "https://client.example.com/./a",
        "https://client.example.com/a/..",
        "https://client.example.com/../a",
        "https://client.example.com/%2e/a",
        "https://client.example.com/a/%2E.",
        "https://client.example.com/a/.%2e?b",
        "https://client.example.com/a%",
        "https://client.example.com/a%2",
        "https://client.example.com/a b",
        "https://client.example.com/a\\b",
        "https://client.example.com\\@evil.example/a",
        "https://client.example.com/é",
        "https://clïent.example.com/a",
        "https://client.example.com:/a",
        "https://client.example.com:0/a",
        "https://client.example.com:65536/a",
        "https://client.example.com:x/a",
        " https://client.example.com/a",
        "https://client.example.com/a\n",
        "https://client.example.com/".ljust(MOST_CHARS + 1, "x"),
        "",
    ],
)
def test_a_url_that_is_no_client_id(client_id: str) -> None:
    """draft §3: no fragment, user info or dot segments, escaped or not; not longer than what stores it."""
    assert parse_document_url(client_id) is None


@each_of(
    ("setting", "client_id", "counts"),
    [
        ("off", URL, False),
        ("on", URL, True),
        ("on", "https://client.example.com/", False),
        ("client.example.com", URL, True),
        ("CLIENT.example.com", URL, True),
        ("client.example.com", "https://client.example.com:8443/a", True),
        ("client.example.com:8443", URL, False),
        ("client.example.com:8443", "https://client.example.com:8443/a", True),
        ("client.example.com:443", URL, True),
        ("client.example.com", "https://evil.client.example.com/a", False),
        ("client.example.com", "https://client.example.com.evil.example/a", False),
        ("*.example.com", URL, True),
        ("*.example.com", "https://a.b.example.com/a", True),
        ("*.example.com", "https://example.com/a", False),
        ("*.example.com", "https://evilexample.com/a", False),
        (".example.com", "https://example.com/a", True),
        (".example.com", URL, True),
        ("other.example, *.example.com:8443", "https://a.example.com:8443/a", True),
        ("127.0.0.1", "https://127.0.0.1:4444/a", True),
        ("[::1],localhost", "https://[::1]:4444/a", True),
        ("[::1],localhost", "https://localhost:4444/a", True),
    ],
)
def test_whose_documents_count(setting: str, client_id: str, counts: bool) -> None:
    """docs/client-documents.md: one host, or all below a domain; with a port only that."""
    assert (DocumentHosts(client_documents(setting)).url_of(client_id) is not None) is counts


@each_of(
    "setting",
    [
        "ON",
        "true",
        "1",
        "*",
        "*.",
        "https://example.com",
        "a..b",
        "*.*.example.com",
        "a.*.com",
        "*.1.2.3.4",
        ",",
        "example.com/a",
    ],
)
def test_a_pattern_that_is_none(setting: str) -> None:
    """docs/settings.md: a fault that says what to write."""
    with pytest.raises(ValueError, match="write off, on, or hosts"):
        client_documents(setting)


def _read(document: Any, status: int = 200, **headers: str) -> dict[str, Any]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_document(URL, status, named, body)


@each_of(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON; charset=utf-8",
        "application/client+json",
        "application/json;x",
        None,
    ],
)
def test_a_document_that_counts(content_type: str | None) -> None:
    """draft §4, §5: JSON with the URL as its client_id; members that are unknown do not matter here."""
    document = {"client_id": URL, "x": [None], "redirect_uris": []}
    headers = {} if content_type is None else {"content_type": content_type}
    assert _read(document, **headers) == document


@each_of(
    ("document", "cause"),
    [
        (b"", "document_malformed"),
        (b"<html>", "document_malformed"),
        (b"\xff{}", "document_malformed"),
        (b"[" * 5000, "document_malformed"),
        (b"[]", "document_malformed"),
        (b"null", "document_malformed"),
        (b'"' + URL.encode() + b'"', "document_malformed"),
        (f'{{"client_id": "{URL}", "client_id": "{URL}"}}'.encode(), "document_malformed"),
        ({}, "document_of_another"),
        ({"client_id": None}, "document_of_another"),
        ({"client_id": [URL]}, "document_of_another"),
        ({"client_id": f"{URL}/"}, "document_of_another"),
        ({"client_id": URL.upper()}, "document_of_another"),
        ({"client_id": URL.replace("https://client", "https://CLIENT")}, "document_of_another"),
        ({"client_id": URL.replace("/oauth", ":443/oauth")}, "document_of_another"),
        ({"client_id": URL.replace("oauth", "%6Fauth")}, "document_of_another"),
        ({"client_id": URL, "client_secret": "x" * 40}, "document_with_secret"),
        ({"client_id": URL, "client_secret": None}, "document_with_secret"),
        ({"client_id": URL, "client_secret_expires_at": 0}, "document_with_secret"),
    ],
)
def test_a_document_that_does_not(document: Any, cause: str) -> None:
    """draft §4: simple string comparison of client_id (RFC 3986 §6.2.1), and no secret."""
    with pytest.raises(DocumentRefused) as refused:
        _read(document)
    assert refused.value.cause == cause


@each_of(
    ("status", "content_type", "cause"),
    [
        (201, "application/json", "document_status"),
        (204, "application/json", "document_status"),
        (301, "application/json", "document_status"),
        (304, "application/json", "document_status"),
        (404, "application/json", "document_status"),
        (500, "application/json", "document_status"),
        (200, "text/html", "document_type"),
        (200, "text/plain", "document_type"),
        (200, "application/jsonp", "document_type"),
        (200, "application/jwk-set+json, text/html", "document_type"),
        (200, "", "document_type"),
    ],
)
def test_an_answer_that_does_not(status: int, content_type: str, cause: str) -> None:
    """draft §5: 200 and JSON; a redirect is not followed."""
    with pytest.raises(DocumentRefused) as refused:
        _read({"client_id": URL}, status, content_type=content_type)
    assert refused.value.cause == cause


@each_of(
    ("headers", "seconds"),
    [
        ({}, SHORTEST_S),
        ({"cache-control": "max-age=0"}, SHORTEST_S),
        ({"cache-control": "max-age=299"}, SHORTEST_S),
        ({"cache-control": "max-age=600"}, 600),
        ({"cache-control": 'public , MAX-AGE="3600"'}, 3600),
        ({"cache-control": "max-age=86401"}, LONGEST_S),
        ({"cache-control": "max-age=99999999999"}, SHORTEST_S),
        ({"cache-control": "max-age=-1"}, SHORTEST_S),
        ({"cache-control": "max-age=x"}, SHORTEST_S),
        ({"cache-control": "max-age=\u0663600"}, SHORTEST_S),
        ({"cache-control": "max-age=3600, no-store"}, SHORTEST_S),
        ({"cache-control": "no-cache, max-age=3600"}, SHORTEST_S),
        ({"cache-control": "max-age=600, max-age=3600"}, 600),
        ({"cache-control": "s-maxage=3600"}, SHORTEST_S),
        ({"cache-control": "max-age=3600", "age": "1000"}, 2600),
        ({"cache-control": "max-age=3600", "age": "9000"}, SHORTEST_S),
    ],
)
def test_how_long_it_counts(headers: Mapping[str, str], seconds: int) -> None:
    """draft §5.2: as Cache-Control says, but at least 5 minutes and at most a day."""
    assert fresh_s(headers) == seconds
