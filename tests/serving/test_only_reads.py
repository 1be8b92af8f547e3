"""Which requests never wait for another one's write: the others have threads of their own."""

from __future__ import annotations

import pytest

from service.serving.plan import only_reads

READS = [
    ("GET", "/healthz"),
    ("GET", "/readyz?verbose=1"),
    ("POST", "/api/auth/jwt"),
    ("GET", "/api/auth/me"),
    ("GET", "/oidc/userinfo"),
    ("POST", "/id/oidc/introspect"),
    ("GET", "/oidc/jwks"),
    ("GET", "/.well-known/openid-configuration"),
    ("HEAD", "/id/.well-known/openid-configuration"),
]
WRITES = [
    ("POST", "/oidc/token"),
    ("GET", "/oidc/authorize?x=/oidc/jwks"),
    ("POST", "/api/auth/session"),
    ("DELETE", "/api/auth/users/a/oidc/userinfo"),
    ("DELETE", "/api/auth/users/healthz"),
    ("GET", "/api/auth/users/healthz"),
    ("PUT", "/oidc/jwks"),
    ("", ""),
]


#: The body of a form, and whether introspection with it only reads.
FORMS: list[tuple[bytes | None, bool]] = [
    (b"", True),
    (b"token=x&client_id=a&client_secret=b", True),
    (b"token=x&client_assertion=a.b.c", False),
    (b"client%5fassertion=a.b.c", False),
    (b"%63%6C%69%65%6E%74_assertion=a.b.c", False),
    (None, False),
]


@pytest.mark.parametrize(("body", "reads"), FORMS)
def test_a_signed_client_may_wait(body: bytes | None, reads: bool) -> None:
    """docs/security.md: an assertion is noted, and may wait for the client's keys; other introspection reads."""
    assert only_reads("POST", "/id/oidc/introspect", body) is reads
    assert only_reads("POST", "/oidc/userinfo", body)


#: The body of a form, and whether a request for a token with it only reads.
TOKENS: list[tuple[bytes | None, bool]] = [
    (b"grant_type=client_credentials", True),
    (b"scope=a&grant_type=client_credentials&resource=https%3A%2F%2Fapi.example.com", True),
    (b"grant_type=authorization_code&code=x", False),
    (b"x=grant_type%3Dclient_credentials&grant_type=refresh_token", False),
    (b"x=1%26grant_type=client_credentials&grant%5Ftype=refresh_token", False),
    (b"grant_type=client_credentials&grant%5Ftype=refresh_token", False),
    (b"grant_type=client_credentials&grant_type=client_credentials", False),
    (b"grant_type=client%5Fcredentials", False),
    (b"grant_type=client_credentials_", False),
    (b"grant_type=client_credentials&client%5Fassertion=a.b.c", False),
    (b"", False),
    (None, False),
]


@pytest.mark.parametrize(("body", "reads"), TOKENS)
def test_a_token_for_a_client_itself_uses_nothing_up(body: bytes | None, reads: bool) -> None:
    """docs/decisions/0014-speed.md: nothing else is taken for that, however the form is written."""
    assert only_reads("POST", "/id/oidc/token", body) is reads


@pytest.mark.parametrize(("method", "target"), READS)
def test_what_reads(method: str, target: str) -> None:
    """Under an issuer with a path too."""
    assert only_reads(method, target)


@pytest.mark.parametrize(("method", "target"), WRITES)
def test_what_may_write(method: str, target: str) -> None:
    """Whatever else its query or an id in its path looks like."""
    assert not only_reads(method, target)
