"""docs/settings.md: every setting: its default, good values, and each kind of bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import certifi

from service.settings import NAMES
from tests.settings.reading import STRONG, modulus, named, read
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem

DEFAULTS: dict[str, Any] = {
    "PYLON_OIDC_ISSUER": None,
    "PYLON_ALLOWED_HOSTS": (),
    "PYLON_DEV_MODE": False,
    "PYLON_JWT_SECRET": None,
    "PYLON_JWT_SECRET_PREVIOUS": None,
    "PYLON_JWT_ALG": "HS256",
    "PYLON_JWT_ISSUER": None,
    "PYLON_JWT_AUDIENCE": None,
    "PYLON_JWT_LIFETIME_SECS": 3600,
    "PYLON_POLICIES": None,
    "PYLON_OIDC_JWKS_RSA_N": None,
    "PYLON_OIDC_JWKS_RSA_E": 65537,
    "PYLON_OIDC_JWKS_KID": None,
    "PYLON_OIDC_PRIVATE_KEY": None,
    "PYLON_OIDC_KEY_PATH": None,
    "DATABASE_URL": None,
    "PYLON_STATUS_LIST": False,
    "PYLON_PREPARED_STATEMENTS": False,
    "PYLON_DATA_DIR": Path("data"),
    "PYLON_ADMIN_TOKEN": None,
    "PYLON_ADMIN_TOKEN_PREVIOUS": None,
    "PYLON_TRUSTED_SECRET": None,
    "PYLON_TRUSTED_SECRET_PREVIOUS": None,
    "PYLON_TRUSTED_ORIGINS": frozenset(),
    "PYLON_SESSION_LIFETIME_SECS": 2_592_000,
    "PYLON_COOKIE_NAME": "pylon_session",
    "PYLON_COOKIE_DOMAIN": None,
    "PYLON_COOKIE_SAME_SITE": "lax",
    "PYLON_OIDC_SCOPES": None,
    "PYLON_OIDC_CLIENTS": (),
    "PYLON_LOGIN_URL": None,
    "PYLON_CONSENT_URL": None,
    "PYLON_LOGOUT_URL": None,
    "PYLON_BRAND_NAME": None,
    "PYLON_DELIVERIES": "workers",
    "PYLON_OIDC_CODE_LIFETIME_SECS": 60,
    "PYLON_OIDC_ID_TOKEN_LIFETIME_SECS": 600,
    "PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS": 3600,
    "PYLON_OIDC_REFRESH_IDLE_LIFETIME_SECS": 2_592_000,
    "PYLON_OIDC_REFRESH_MAX_LIFETIME_SECS": 7_776_000,
    "PYLON_OIDC_INTERACTION_LIFETIME_SECS": 3600,
    "PYLON_OIDC_REFRESH_GRACE_SECS": 30,
    "PYLON_OIDC_KEYS": None,
    "PYLON_KEY_ENCRYPTION_KEY": None,
    "PYLON_OIDC_ALGS": ("RS256",),
    "PYLON_OIDC_KEY_ROTATION_DAYS": 90,
    "PYLON_OIDC_REGISTRATION": "off",
    "PYLON_OIDC_REGISTRATION_SCOPES": ("openid", "profile", "email", "offline_access"),
    "PYLON_OIDC_REGISTRATION_IDLE_DAYS": 30,
    "PYLON_OIDC_CLIENT_DOCUMENTS": False,
    "PYLON_OIDC_STRANGER_DEVICES": False,
    "PYLON_OUTBOUND_ALLOW": None,
    "PYLON_OUTBOUND_CA_FILE": None,
    "PYLON_OUTBOUND_PROXY": None,
    "PYLON_LOG_LEVEL": "info",
    "PYLON_LOG_FORMAT": None,
    "FORWARDED_ALLOW_IPS": ("127.0.0.1", "::1"),
}

PAGES = [
    "https://app.example.com/sign-in",
    "https://app.example.com",
    "https://app.example.com:8443/a/b?tenant=t&x=",
    "http://localhost:3000/sign-in",
    "http://127.0.0.1:3000/",
    "http://[::1]:3000",
    "https://app.example.com/?to=a@b.example",
]
GOOD: dict[str, list[str]] = {
    "PYLON_OIDC_ISSUER": [
        "https://id.example.com",
        "https://id.example.com:8443/tenant",
        "http://localhost:4321",
    ],
    "PYLON_ALLOWED_HOSTS": ["id.example.com", "id.example.com, .example.org:*,a:8443", ",,a,,"],
    "PYLON_DEV_MODE": ["0", "1"],
    "PYLON_JWT_SECRET": [STRONG, STRONG * 100, "correct horse battery staple and more"],
    "PYLON_JWT_SECRET_PREVIOUS": [STRONG, STRONG * 100, "correct horse battery staple and more"],
    "PYLON_JWT_ALG": ["HS256"],
    "PYLON_JWT_ISSUER": ["https://id.example.com/", "urn:app", "my app"],
    "PYLON_JWT_AUDIENCE": ["https://api.example.com", "api"],
    "PYLON_JWT_LIFETIME_SECS": ["1", "60", "86400"],
    "PYLON_POLICIES": ["<policies>"],
    "PYLON_OIDC_JWKS_RSA_N": ["<modulus>"],
    "PYLON_OIDC_JWKS_RSA_E": ["AQAB", "Aw", "EQ"],
    "PYLON_OIDC_JWKS_KID": ["k", "2026-11", "a" * 255],
    "PYLON_OIDC_PRIVATE_KEY": ["<pem>", "<pem in one line>"],
    "PYLON_OIDC_KEY_PATH": ["<missing>", "<key file>"],
    "DATABASE_URL": [
        "sqlite:///<folder>/x.db",
        "postgresql://u:p@h/n",
        "postgres://h/n",
        "postgresql:///n?host=/run/x",
        "postgresql://u:p@h1:5432,h2:5433/n?target_session_attrs=read-write",
        "postgresql://u:p@h1,h2/n?sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem&load_balance_hosts=random",
        "postgresql://u:p@[2001:db8::1]:5432,[::1]/n",
        "postgresql://%2Frun%2Fpostgresql/n",
        "postgresql://?service=pylon",
        "postgresql://u@/n?hostaddr=127.0.0.1,127.0.0.2&port=1,2&connect_timeout=5",
        "postgresql://u:p#?[]:w@h/n",
    ],
    "PYLON_STATUS_LIST": ["0"],
    "PYLON_PREPARED_STATEMENTS": ["0", "1"],
    "PYLON_DATA_DIR": ["<folder>", "<folder>/new/and/deep"],
    "PYLON_ADMIN_TOKEN": [STRONG, "a1B2~._-+/=" + STRONG],
    "PYLON_ADMIN_TOKEN_PREVIOUS": [STRONG, "a1B2~._-+/=" + STRONG],
    "PYLON_TRUSTED_SECRET": [STRONG, "пароль-который-никто-не-знает-1234"],
    "PYLON_TRUSTED_SECRET_PREVIOUS": [STRONG, "пароль-который-никто-не-знает-1234"],
    "PYLON_TRUSTED_ORIGINS": ["https://app.example.com", "https://a.example, http://localhost:3000,"],
    "PYLON_SESSION_LIFETIME_SECS": ["1", "2592000", "7776000"],
    "PYLON_COOKIE_NAME": ["sid", "__Host-sid", "__Secure-sid", "a.b!c"],
    "PYLON_COOKIE_DOMAIN": ["example.com", ".example.com", "Example.COM", "a.b.example.com"],
    "PYLON_COOKIE_SAME_SITE": ["lax", "strict", "none"],
    "PYLON_OIDC_SCOPES": [
        "{}",
        '{"hr": {"claims": ["department"], "description": "see your department"}}',
        '{"a.b:c/d-e_f": {"claims": ["x:/.-_9", "plan"], "description": "Zoë"}, "plan": {"claims": ["plan"], "description": "p"}}',
    ],
    "PYLON_OIDC_CLIENTS": [
        "[]",
        '[{"client_id": "a", "redirect_uris": ["https://rp.example/cb"]}]',
        f'[{{"client_id": "a", "redirect_uris": ["https://rp.example/cb"], "client_secret": "{STRONG}"}}]',
    ],
    "PYLON_LOGIN_URL": PAGES,
    "PYLON_CONSENT_URL": PAGES,
    "PYLON_LOGOUT_URL": PAGES,
    "PYLON_DELIVERIES": ["workers", "watch"],
    "PYLON_BRAND_NAME": ["A", "Ada & Söhne <1>", "x" * 64],
    "PYLON_OIDC_CODE_LIFETIME_SECS": ["1", "60"],
    "PYLON_OIDC_ID_TOKEN_LIFETIME_SECS": ["1", "86400"],
    "PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS": ["1", "86400"],
    "PYLON_OIDC_REFRESH_IDLE_LIFETIME_SECS": ["1", "31536000"],
    "PYLON_OIDC_REFRESH_MAX_LIFETIME_SECS": ["1", "31536000"],
    "PYLON_OIDC_INTERACTION_LIFETIME_SECS": ["1", "86400"],
    "PYLON_OIDC_REFRESH_GRACE_SECS": ["0", "300"],
    "PYLON_OIDC_KEYS": ["managed"],
    "PYLON_KEY_ENCRYPTION_KEY": [
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=, 4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8=",
    ],
    "PYLON_OIDC_ALGS": ["RS256", "Ed25519, ES256,PS256 ,RS256", "ES256"],
    "PYLON_OIDC_KEY_ROTATION_DAYS": ["0", "1", "3650"],
    "PYLON_OIDC_REGISTRATION": ["off", "token", "open"],
    "PYLON_OIDC_REGISTRATION_SCOPES": ["openid", "openid  email address roles groups"],
    "PYLON_OIDC_REGISTRATION_IDLE_DAYS": ["1", "3650"],
    "PYLON_OIDC_CLIENT_DOCUMENTS": [
        "off",
        "on",
        "app.example.com",
        ".example.org, app.example.com:8443",
        "*.example.com",
    ],
    "PYLON_OIDC_STRANGER_DEVICES": ["0", "1"],
    "PYLON_OUTBOUND_ALLOW": ["app.internal", "10.1.2.3, fd00::/8,[::1]"],
    "PYLON_OUTBOUND_CA_FILE": ["<authorities>"],
    "PYLON_OUTBOUND_PROXY": ["http://proxy.internal:3128", "http://u:p@[fd00::1]:3128/"],
    "PYLON_LOG_LEVEL": ["debug", "info", "warning", "error"],
    "PYLON_LOG_FORMAT": ["json", "console"],
    "FORWARDED_ALLOW_IPS": ["127.0.0.1", "10.0.0.0/8, ::1", "*", "192.0.2.1,2001:db8::/32"],
}

NO_SECONDS = [
    "0", "-1", "+1", "1.5", "1e3", "0x10", "one", " 60", "60 ", "60s", "1_000", "٦٠", "9" * 13, "\u00b2",
]  # fmt: skip
NO_PAGE = [
    "a.example/sign-in", "//a.example/sign-in", "/sign-in", "http://app.example.com/sign-in",
    "http://192.0.2.1/", "HTTPS://app.example.com/sign-in", "ftp://app.example.com/", "javascript:alert(1)",
    "https:app.example.com", "https://", "https:///sign-in", "https://?x",
    "https://u@app.example.com/sign-in", "https://app.example.com@evil.example/",
    "https://app.example.com\\@evil.example/", "https://*.example.com/", "https://app.example.com:0/",
    "https://app.example.com/sign-in#x", "https://app.example.com/sign in", "https://app.example.com/\n",
    "https://app.example.com/é", "\x00",
]  # fmt: skip
NO_HOST = [
    "https://a.example", "*", "*.example.com", "a b", "a,b/c", "a:0", "a:99999", "a_b", "[::1", "..a",
    "1.2.3", ",", " , ",
]  # fmt: skip
BAD: dict[str, list[str]] = {
    "PYLON_OIDC_ISSUER": [
        "id.example.com",
        "https://id.example.com/",
        "http://id.example.com",
        "https://ID.example.com",
        "https://id.example.com:443",
        "https://u@id.example.com",
        "https://id.example.com?x",
        "x",
    ],
    "PYLON_ALLOWED_HOSTS": NO_HOST,
    "PYLON_DEV_MODE": ["2", "yes", "on", "-1", " ", "01", "0 "],
    "PYLON_JWT_SECRET": ["short", "a" * 64, "changeme-changeme-changeme-changeme", STRONG[:31], "<pem>"],
    "PYLON_JWT_SECRET_PREVIOUS": [
        "short",
        "a" * 64,
        "changeme-changeme-changeme-changeme",
        STRONG[:31],
        "<pem>",
    ],
    "PYLON_JWT_ALG": ["none", "None", "hs256", "HS512", "RS512", "ES256K", "RSA", " HS256"],
    "PYLON_JWT_ISSUER": ["a\nb", "a\tb", "\x7f", "a" * 256, "\x00"],
    "PYLON_JWT_AUDIENCE": ["a\nb", "\u202e\u0000", "a" * 256],
    "PYLON_JWT_LIFETIME_SECS": [*NO_SECONDS, "86401"],
    "PYLON_POLICIES": ["<folder>", "<missing>", "<empty file>", "\x00"],
    "PYLON_OIDC_JWKS_RSA_N": [
        "AQAB",
        "<modulus>=",
        "<modulus>+",
        "AA<modulus>",
        "<even modulus>",
        "<1024>",
        "0x10",
        "12345",
    ],
    "PYLON_OIDC_JWKS_RSA_E": ["AQ", "Ag", "BA", "AAEAAQ", "65537", "AQAB=", "_" * 40, "é"],
    "PYLON_OIDC_JWKS_KID": ["a b", "é", "a" * 256, "a\n", "\x00"],
    "PYLON_OIDC_PRIVATE_KEY": ["x", "<1024 pem>", "<pem cut>", "-----BEGIN PRIVATE KEY-----"],
    "PYLON_OIDC_KEY_PATH": ["<folder>", "<readable by others>", "<empty file>", "<file>/key.pem", "a\x00b"],
    "DATABASE_URL": [
        "mysql://u:p@h/n",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///<folder>",
        "sqlite:///<file>/x.db",
        "x",
        "postgresql://h:port/n",
        "postgresql://u:p@h/n?shoe_size=1",
        "postgresql://u:p%zz@h/n",
        "postgresql://u:\udcff@h/n",
        "postgresql://u:p@h:0/n",
        "postgresql://u:p@h:65536/n",
        "postgresql://u:p@h1,h2/n?port=1,2,3",
        "postgresql://u:p@h/n?sslmode=on",
        "postgresql://u:p@h/n?target_session_attrs=master",
        "postgresql://u:p@h/n?connect_timeout=soon",
        "postgresql://u:p@h/n?keepalives_idle=long",
        "postgresql://u:p@h/n?sslmode",
        "postgresql://u:p w@h/n",
        "<folder>/x.db",
        "sqlite:///x?mode=memory",
        "oracle://",
    ],
    "PYLON_STATUS_LIST": ["yes", "2"],
    "PYLON_PREPARED_STATEMENTS": ["yes", "2"],
    "PYLON_DATA_DIR": ["<file>", "<file>/data", "a\x00b", "a\nb"],
    "PYLON_ADMIN_TOKEN": [
        "short",
        STRONG[:31],
        f"{STRONG} {STRONG}",
        STRONG + "é",
        "a" * 64,
        STRONG + "\n",
        "changeme-" * 5,
    ],
    "PYLON_ADMIN_TOKEN_PREVIOUS": ["short", STRONG[:31], f"{STRONG} {STRONG}", "changeme-" * 5],
    "PYLON_TRUSTED_SECRET": ["short", STRONG[:31], "0" * 64, "placeholder-placeholder-placeholder"],
    "PYLON_TRUSTED_SECRET_PREVIOUS": ["short", STRONG[:31], "0" * 64, "placeholder-placeholder-placeholder"],
    "PYLON_TRUSTED_ORIGINS": [
        "*",
        "null",
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/x",
        "http://app.example.com",
        "https://A.example",
        "https://a.example,https://b.example/",
    ],
    "PYLON_SESSION_LIFETIME_SECS": [*NO_SECONDS, "7776001"],
    "PYLON_COOKIE_NAME": ["a b", "a=b", "a;b", "a,b", "é", "a\n", '"a"', "a/b", "(a)", "a@b"],
    "PYLON_COOKIE_DOMAIN": [
        "https://example.com",
        "example.com:8443",
        "a b",
        "192.0.2.1",
        "[::1]",
        "*.example.com",
        "example.com/",
        "a;b",
        ".",
    ],
    "PYLON_COOKIE_SAME_SITE": ["Lax", "off", "None", "lax "],
    "PYLON_OIDC_SCOPES": [
        "x",
        "[]",
        "null",
        "1",
        '""',
        "{",
        "[" * 100_000,
        '{"hr": ["department"]}',
        '{"hr": {"claims": ["department"]}}',
        *(
            f'{{"hr": {{"claims": {claims}, "description": "d"}}}}'
            for claims in (
                "[]",
                '"department"',
                "[1]",
                '["sub"]',
                '["email"]',
                '["roles"]',
                '["a b"]',
                '["act"]',
                '[""]',
                '["é"]',
            )
        ),
        *(
            f'{{"hr": {{"claims": ["department"], "description": {text}}}}}'
            for text in ('""', "1", "null", '"a\\nb"', f'"{"x" * 256}"', '"\\u202e"')
        ),
        *(
            f'{{"{word}": {{"claims": ["department"], "description": "d"}}}}'
            for word in ("", "a b", "openid", "groups", "sub", "scope", "é", "x" * 65)
        ),
        '{"hr": {"claims": ["a"], "description": "d", "more": 1}}',
        '{"hr": {"claims": ["a"], "description": "d"}, "hr": {"claims": ["b"], "description": "d"}}',
    ],
    "PYLON_OIDC_CLIENTS": [
        "x",
        "{}",
        "null",
        "1",
        '""',
        '["a"]',
        "[null]",
        "[[]]",
        "[",
        '[{"client_id": "a"}]',
        "[" * 100_000,
    ],
    "PYLON_LOGIN_URL": NO_PAGE,
    "PYLON_CONSENT_URL": NO_PAGE,
    "PYLON_LOGOUT_URL": NO_PAGE,
    "PYLON_DELIVERIES": ["Watch", "1", "none", "gunicorn"],
    "PYLON_BRAND_NAME": ["x" * 65, "two\nlines", "a\tb"],
    "PYLON_OIDC_CODE_LIFETIME_SECS": [*NO_SECONDS, "61"],
    "PYLON_OIDC_ID_TOKEN_LIFETIME_SECS": [*NO_SECONDS, "86401"],
    "PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS": [*NO_SECONDS, "86401"],
    "PYLON_OIDC_REFRESH_IDLE_LIFETIME_SECS": [*NO_SECONDS, "31536001"],
    "PYLON_OIDC_REFRESH_MAX_LIFETIME_SECS": [*NO_SECONDS, "31536001"],
    "PYLON_OIDC_INTERACTION_LIFETIME_SECS": [*NO_SECONDS, "86401"],
    "PYLON_OIDC_REFRESH_GRACE_SECS": [*NO_SECONDS[1:], "301"],
    "PYLON_OIDC_KEYS": ["Managed", "1", "yes", "database"],
    "PYLON_KEY_ENCRYPTION_KEY": [
        "x",
        "!",
        "AAAA",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=,",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=,AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=;4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8=",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    ],
    "PYLON_OIDC_ALGS": ["HS256", "RS256;ES256", "none", "EdDSA", "rs256", ",", "RS256,RS384"],
    "PYLON_OIDC_KEY_ROTATION_DAYS": ["-1", "3651", "1.5", "x", "90d"],
    "PYLON_OIDC_REGISTRATION": ["on", "Open", "closed", "1"],
    "PYLON_OIDC_REGISTRATION_SCOPES": [" ", "openid nothing", "openid,email", "openid\x00"],
    "PYLON_OIDC_REGISTRATION_IDLE_DAYS": ["0", "3651", "30d", "-1"],
    "PYLON_OIDC_CLIENT_DOCUMENTS": ["https://app.example", "*.com", "a.*.com", ",", "app.example/x", "On"],
    "PYLON_OIDC_STRANGER_DEVICES": ["yes", "2"],
    "PYLON_OUTBOUND_ALLOW": [
        "a b",
        "*.internal",
        "10.0.0.1/8",
        "a:8080",
        "https://a.internal",
        "a,,b",
        "127.1",
    ],
    "PYLON_OUTBOUND_CA_FILE": ["<missing>", "<empty file>", "<folder>", "<pem>", "\x00"],
    "PYLON_OUTBOUND_PROXY": [
        "https://p:1",
        "p:1",
        "http://p",
        "http://p:0",
        "http://p:1/x",
        "socks5://p:1",
        "http://127.1:1",
    ],
    "PYLON_LOG_LEVEL": ["INFO", "trace", "critical", "10"],
    "PYLON_LOG_FORMAT": ["text", "JSON", "yaml"],
    "FORWARDED_ALLOW_IPS": ["localhost", "10.0.0.0/33", "10.0.0.1/8", "a", "*,a", "1.2.3"],
}


def _write(folder: Path, value: str) -> str:
    """Replace a row's `<…>` with what it means."""
    key_file, file = folder / "key.pem", folder / "file"
    key_file.write_text(rsa_pem())
    key_file.chmod(0o600)
    file.write_text("")
    file.chmod(0o600)
    readable = folder / "readable.pem"
    readable.write_text(rsa_pem())
    readable.chmod(0o640)
    (policies := folder / "policies.toml").write_text('[audience.api]\nalg = "HS256"\n')
    whole = {
        "<policies>": lambda: str(policies),
        "<authorities>": certifi.where,
        "<pem>": rsa_pem,
        "<pem in one line>": lambda: rsa_pem().replace("\n", "\\n"),
        "<pem cut>": lambda: rsa_pem()[:-200],
        "<1024 pem>": lambda: rsa_pem(1024),
        "<1024>": lambda: modulus(rsa_pem(1024)),
        "<even modulus>": lambda: modulus()[:-1] + "A",
        "<key file>": lambda: str(key_file),
        "<missing>": lambda: str(folder / "new" / "key.pem"),
        "<readable by others>": lambda: str(readable),
        "<empty file>": lambda: str(file),
    }
    if value in whole:
        return whole[value]()
    value = value.replace("<modulus>", modulus()) if "<modulus>" in value else value
    return value.replace("<folder>", str(folder)).replace("<file>", str(file))


def test_these_tables_are_of_every_setting() -> None:
    """A setting without a good value and a bad one here is a setting untested."""
    assert set(NAMES) == set(GOOD) == set(BAD) == set(DEFAULTS)


@each_of("name", NAMES)
def test_unset_it_has_its_default(name: str) -> None:
    """The default column."""
    from service.settings import read_settings

    value = getattr(read_settings({}).settings, NAMES[name])
    assert value == DEFAULTS[name]


@each_of(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_a_good_value_is_taken(tmp_path: Path, name: str, value: str) -> None:
    """The meaning column: what is allowed."""
    needy = {
        "PYLON_OIDC_CLIENTS",
        "PYLON_OIDC_KEYS",
        "PYLON_OIDC_REGISTRATION",
        "PYLON_OIDC_CLIENT_DOCUMENTS",
    }  # outside dev mode they need more settings
    beside = {"PYLON_DEV_MODE": "1"} if name in needy else {}
    reading = read(tmp_path, **beside, **{name: _write(tmp_path, value)})
    assert reading.faults == []
    if name not in {"PYLON_DEV_MODE", "PYLON_JWT_ALG"}:
        assert getattr(reading.settings, NAMES[name]) is not None


@each_of(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_one_fault_with_its_remedy(tmp_path: Path, name: str, value: str) -> None:
    """docs/cli.md: one line each, `NAME: what is wrong; what to write instead`."""
    written = _write(tmp_path, value)
    reading = read(tmp_path, **{name: written})
    assert named(reading) == [name]
    line = str(reading.faults[0])
    assert line.startswith(f"{name}: ")
    assert "\n" not in line and line.isprintable()
    wrong, separator, remedy = reading.faults[0].text.partition("; ")
    assert wrong and separator and remedy
    if (
        len(written) > 12
        and name != "PYLON_OIDC_ISSUER"
        and not name.endswith(("PATH", "DIR", "ORIGINS", "POLICIES"))
    ):
        assert written not in line


VALUES: list[tuple[str, str, Any]] = [
    ("PYLON_DEV_MODE", "1", True),
    ("PYLON_DEV_MODE", "0", False),
    ("PYLON_JWT_LIFETIME_SECS", "60", 60),
    ("PYLON_SESSION_LIFETIME_SECS", "7776000", 7_776_000),
    ("PYLON_OIDC_JWKS_RSA_E", "Aw", 3),
    ("PYLON_COOKIE_DOMAIN", ".Example.COM", "example.com"),
    (
        "PYLON_TRUSTED_ORIGINS",
        "https://a.example , https://b.example",
        frozenset({"https://a.example", "https://b.example"}),
    ),
    ("FORWARDED_ALLOW_IPS", "10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
    ("PYLON_OIDC_ISSUER", "https://id.example.com/T", "https://id.example.com/T"),
    ("PYLON_JWT_ISSUER", "https://id.example.com/", "https://id.example.com/"),
    ("PYLON_LOGIN_URL", "https://app.example.com/Sign?x=%20", "https://app.example.com/Sign?x=%20"),
    ("PYLON_OIDC_REFRESH_GRACE_SECS", "0", 0),
]


@each_of(("name", "value", "parsed"), VALUES)
def test_a_value_is_read_as_what_it_says(tmp_path: Path, name: str, value: str, parsed: Any) -> None:
    """Parsed once, into the value that the program uses; the issuers byte for byte."""
    assert getattr(read(tmp_path, **{name: value}).settings, NAMES[name]) == parsed


@each_of("name", NAMES)
def test_an_empty_value_is_unset(name: str) -> None:
    """docs/cli.md: an empty value counts as unset, of `NAME` and of `NAME_FILE`."""
    from service.settings import read_settings

    for environ in ({name: ""}, {f"{name}_FILE": ""}, {name: "", f"{name}_FILE": ""}):
        reading = read_settings(environ)
        assert reading.faults == []
        assert getattr(reading.settings, NAMES[name]) == DEFAULTS[name]


@each_of("url", ["postgres://u:p@h/n", "postgresql://u:p@h/n", "postgresql+psycopg://u:p@h/n"])
def test_postgresql_may_be_written_as_paas_do(tmp_path: Path, url: str) -> None:
    """`postgresql://…` (`postgres://` accepted)."""
    database = read(tmp_path, DATABASE_URL=url).settings.database
    assert (database.is_sqlite, database.url) == (False, "postgresql://u:p@h/n")


def test_the_database_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    """`DATABASE_URL`: SQLite file in the data folder."""
    assert read(tmp_path).settings.database.path.parent == tmp_path / "data"
    relative = read(tmp_path, DATABASE_URL="sqlite:///x.db").settings.database
    assert relative.path == Path("x.db")
    absolute = read(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/x%20y.db").settings.database
    assert absolute.path == tmp_path / "x y.db"


def test_the_lifetimes_of_what_the_provider_gives_out(tmp_path: Path) -> None:
    """Each of the seven is the setting of its own name."""
    names = [
        f"PYLON_OIDC_{what}_LIFETIME_SECS" for what in ("CODE", "ID_TOKEN", "ACCESS_TOKEN", "REFRESH_IDLE")
    ]
    names += ["PYLON_OIDC_REFRESH_MAX_LIFETIME_SECS", "PYLON_OIDC_REFRESH_GRACE_SECS"]
    given = {name: str(number) for number, name in enumerate(names, 11)}
    reading = read(tmp_path, **given, PYLON_OIDC_INTERACTION_LIFETIME_SECS="61")
    assert reading.faults == []
    kept = reading.settings.lifetimes
    assert (kept.code_s, kept.id_token_s, kept.access_token_s, kept.refresh_idle_s) == (11, 12, 13, 14)
    assert (kept.refresh_max_s, kept.refresh_grace_s, kept.interaction_s) == (15, 16, 61)
