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


@pytest.mark.parametrize(("method", "target"), READS)
def test_what_reads(method: str, target: str) -> None:
    """Under an issuer with a path too."""
    assert only_reads(method, target)


@pytest.mark.parametrize(("method", "target"), WRITES)
def test_what_may_write(method: str, target: str) -> None:
    """Whatever else its query or an id in its path looks like."""
    assert not only_reads(method, target)
