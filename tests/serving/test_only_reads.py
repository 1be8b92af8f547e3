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


@pytest.mark.parametrize(("method", "target"), READS)
def test_what_reads(method: str, target: str) -> None:
    """Under an issuer with a path too."""
    assert only_reads(method, target)


@pytest.mark.parametrize(("method", "target"), WRITES)
def test_what_may_write(method: str, target: str) -> None:
    """Whatever else its query or an id in its path looks like."""
    assert not only_reads(method, target)
