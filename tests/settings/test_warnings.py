"""docs/settings.md: what is allowed, and odd, is warned of; it does not keep the service from starting."""

from __future__ import annotations

import json
from pathlib import Path

from service.settings import NAMES
from tests.settings.reading import STRONG, modulus, read
from tests.support.cases import each_of

QUIET = {"PYLON_OIDC_ISSUER": "https://id.example.com"}


def _warnings(folder: Path, **environ: str) -> list[str]:
    reading = read(folder, **environ)
    assert reading.faults == []
    return reading.warnings


@each_of(
    ("unknown", "meant"),
    [
        ("PYLON_JWT_SECRT", "PYLON_JWT_SECRET"),
        ("PYLON_JWT_SECRETS", "PYLON_JWT_SECRET"),
        ("PYLON_JWT_KEY_SECRET", "PYLON_JWT_SECRET"),
        ("PYLON_OIDC_ISSUERS", "PYLON_OIDC_ISSUER"),
        ("PYLON_OIDC_PRIVATE_KEY_PATH", "PYLON_OIDC_PRIVATE_KEY"),
        ("PYLON_ALLOWED_HOST", "PYLON_ALLOWED_HOSTS"),
        ("PYLON_DATABASE_URL", "DATABASE_URL"),
        ("PYLON_JWT_SECRET_FIL", "PYLON_JWT_SECRET_FILE"),
        ("PYLON_LOGLEVEL", "PYLON_LOG_LEVEL"),
        ("PYLON_SESSION_LIFETIME", "PYLON_SESSION_LIFETIME_SECS"),
        ("PYLON_jwt_secret", "PYLON_JWT_SECRET"),
    ],
)
def test_an_unknown_name_is_warned_of_with_the_nearest(tmp_path: Path, unknown: str, meant: str) -> None:
    """An unknown `PYLON_*` name is warned of at start-up with the nearest known name ("did you mean")."""
    (warning,) = _warnings(tmp_path, **QUIET, **{unknown: STRONG})
    assert warning.startswith(f"{unknown} ")
    assert f"did you mean {meant}?" in warning
    assert STRONG not in warning


@each_of("unknown", ["PYLON_ZZZZZZZZ", "PYLON_", "PYLON_%%%%"])
def test_an_unknown_name_like_no_other_is_warned_of_too(tmp_path: Path, unknown: str) -> None:
    """An unknown `PYLON_*` name is warned of."""
    (warning,) = _warnings(tmp_path, **QUIET, **{unknown: "x"})
    assert unknown in warning


def test_every_unknown_name_is_warned_of(tmp_path: Path) -> None:
    """Each of them."""
    warnings = _warnings(tmp_path, **QUIET, PYLON_FOO="1", PYLON_BAR="2")
    assert [warning.split()[0] for warning in warnings] == ["PYLON_BAR", "PYLON_FOO"]


@each_of("name", ["HOME", "PORT", "WEB_CONCURRENCY", "XPYLON_FOO", "pylon_foo", "PYLON"])
def test_names_of_others_are_not_ours_to_judge(tmp_path: Path, name: str) -> None:
    """An unknown `PYLON_*` name; the rest of the environment is not ours."""
    assert _warnings(tmp_path, **QUIET, **{name: "1"}) == []


def test_what_kubernetes_tells_of_a_service_is_passed_over(tmp_path: Path) -> None:
    """The variables of a Service called pylon, or pylon-oidc, in its name's place: nobody meant a setting by them."""
    for service in ("PYLON", "PYLON_OIDC", "PYLON_2"):
        address = "tcp://10.96.0.1:4321"
        links = {
            f"{service}_SERVICE_HOST": "10.96.0.1", f"{service}_SERVICE_PORT": "4321", f"{service}_SERVICE_PORT_HTTP_ALT": "80",
            f"{service}_PORT": address, f"{service}_PORT_4321_TCP": address, f"{service}_PORT_4321_TCP_PROTO": "tcp",
            f"{service}_PORT_4321_TCP_PORT": "4321", f"{service}_PORT_4321_TCP_ADDR": "10.96.0.1",
            f"{service}_PORT_53_UDP": "udp://10.96.0.1:53",
        }  # fmt: skip
        assert _warnings(tmp_path, **QUIET, **links) == []


@each_of("name", ["PYLON_PORT", "PYLON_OIDC_PORT", "PYLON_PORTS", "PYLON_SERVICE", "PYLON_HOST"])
def test_what_somebody_wrote_by_hand_is_still_told(tmp_path: Path, name: str) -> None:
    """A port that is only digits is not made a link: the operator looks for the setting."""
    (warning,) = _warnings(tmp_path, **QUIET, **{name: "4321"})
    assert warning.startswith(f"{name} is not a setting")


@each_of("name", NAMES)
def test_a_known_name_is_not_warned_of(tmp_path: Path, name: str) -> None:
    """Known names, in both forms."""
    for each in (name, f"{name}_FILE"):
        assert not any("is not a setting" in warning for warning in read(tmp_path, **{each: "x"}).warnings)


@each_of(("environ", "warned"), [({}, True), ({"PYLON_DEV_MODE": "1"}, False), (QUIET, False)])
def test_an_unset_issuer_is_warned_of_outside_dev_mode(
    tmp_path: Path, environ: dict[str, str], warned: bool
) -> None:
    """Unset outside dev mode: a warning, because an internal address would be the `iss`."""
    assert (
        any(warning.startswith("PYLON_OIDC_ISSUER") for warning in _warnings(tmp_path, **environ)) is warned
    )


@each_of(
    ("jwt_issuer", "warned"),
    [("https://other.example", True), ("https://id.example.com/", True), ("https://id.example.com", False)],
)
def test_another_jwt_issuer_is_warned_of(tmp_path: Path, jwt_issuer: str, warned: bool) -> None:
    """A value that is not the issuer is allowed, with a warning at start-up."""
    warnings = _warnings(tmp_path, **QUIET, PYLON_JWT_ISSUER=jwt_issuer)
    assert any("PYLON_JWT_ISSUER" in warning for warning in warnings) is warned


def test_settings_without_effect_are_warned_of(tmp_path: Path) -> None:
    """The allow-list is used only while the issuer is derived; a kid names a key that is there."""
    assert any(
        "PYLON_ALLOWED_HOSTS" in each for each in _warnings(tmp_path, **QUIET, PYLON_ALLOWED_HOSTS="a")
    )
    assert any(
        "PYLON_OIDC_JWKS_KID" in each for each in _warnings(tmp_path, **QUIET, PYLON_OIDC_JWKS_KID="a")
    )
    with_key = _warnings(tmp_path, **QUIET, PYLON_OIDC_JWKS_KID="a", PYLON_OIDC_JWKS_RSA_N=modulus())
    assert with_key == []


def test_a_faulty_issuer_is_not_warned_of_as_unset(tmp_path: Path) -> None:
    """docs/cli.md: one line each: what is set, and wrong, is not unset."""
    reading = read(tmp_path, PYLON_OIDC_ISSUER="x")
    assert [fault.name for fault in reading.faults] == ["PYLON_OIDC_ISSUER"]
    assert reading.warnings == []


def test_urls_of_clients_that_would_not_be_asked_are_faults(tmp_path: Path) -> None:
    """docs/settings.md: an address that is not public, and http, unless the list has the host."""
    client = {
        "client_id": "bank",
        "redirect_uris": ["https://rp.example/cb"],
        "token_endpoint_auth_method": "private_key_jwt",
    }
    in_dev = {"PYLON_DEV_MODE": "1", "PYLON_OIDC_KEY_PATH": str(tmp_path / "key.pem")}

    def faults(uri: str, **environ: str) -> list[str]:
        clients = json.dumps([client | {"jwks_uri": uri}])
        return [
            fault.text for fault in read(tmp_path, **in_dev, PYLON_OIDC_CLIENTS=clients, **environ).faults
        ]

    for uri, words in (
        ("http://app.internal/jwks", "http is only for hosts that PYLON_OUTBOUND_ALLOW names"),
        ("https://10.1.2.3/jwks", "is not a public address"),
        ("https://localhost/jwks", "is not a public address"),
    ):
        (fault,) = faults(uri)
        assert fault.startswith(f"client 1 (bank), jwks_uri: {words}")
        assert faults(uri, PYLON_OUTBOUND_ALLOW="app.internal,10.0.0.0/8,localhost") == []
    assert faults("https://bank.example.com/jwks") == []


def test_a_proxy_is_warned_of(tmp_path: Path) -> None:
    """docs/settings.md: with a proxy, it decides where names lead."""
    in_dev = {"PYLON_DEV_MODE": "1", "PYLON_OIDC_KEY_PATH": str(tmp_path / "key.pem")}
    (warning,) = (
        each
        for each in _warnings(tmp_path, **in_dev, PYLON_OUTBOUND_PROXY="http://proxy:3128")
        if "PROXY" in each
    )
    assert "the proxy must refuse private addresses" in warning
