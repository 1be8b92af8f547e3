"""The authorization request's rules without HTTP: the ordered checks, and what happens next."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.protocol.authorize import (
    AFTER_TRUST,
    BEFORE_TRUST,
    Asked,
    AuthorizationRequest,
    Check,
    build_request,
    check_request,
    is_unbound,
)
from service.protocol.errors import NotOurClient, OAuthError, return_address
from service.protocol.sign_in import (
    MAX_SIGN_IN_ATTEMPTS,
    AskConsent,
    CameBack,
    Facts,
    SendCode,
    SendError,
    ToSignIn,
    step,
)
from service.records.clients import Client, ClientSecret
from service.records.interactions import Consent, State
from service.records.sessions import Session
from tests.support.cases import each_of

NOW = 1_800_000_000
URI = "https://rp.example.org/cb"
CLIENT = Client(
    "c",
    (URI,),
    "environment",
    secrets=(ClientSecret("h"),),
    grant_types=("authorization_code",),
    first_party=True,
)
THIRD = replace(CLIENT, first_party=False)
ON_DEVICE = (URI, "http://127.0.0.1/cb", "http://[::1]/cb", "http://localhost/cb", "com.example.app:/cb")
PUBLIC = replace(
    THIRD,
    secrets=(),
    token_endpoint_auth_method="none",
    redirect_uris=("https://rp.example.org/callback", "https://localhost/cb", *ON_DEVICE),
)
GOOD = {
    "client_id": "c",
    "redirect_uri": URI,
    "response_type": "code",
    "scope": "openid email",
    "state": "s",
    "code_challenge": "x" * 43,
    "code_challenge_method": "S256",
}
SESSION = Session("sid-1", "0" * 64, "pylon_0", "ada", NOW - 100, NOW + 9_000, 9_100, NOW - 100)
ALL = BEFORE_TRUST + AFTER_TRUST


def _asked(
    client: Client | None = CLIENT,
    repeated: tuple[str, ...] = (),
    hint: str | None = None,
    **changes: str | None,
) -> Asked:
    given = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    return Asked(given, frozenset(repeated), client, hint)


def _address(asked: Asked) -> tuple[str, str | None, str]:
    return return_address(asked.parameters, asked.repeated)


def _request(client: Client = CLIENT, hint: str | None = None, **changes: Any) -> AuthorizationRequest:
    asked = _asked(client, hint=hint, **changes)
    check_request(asked, ALL)
    return build_request(asked)


def _refuses(check: Check, asked: Asked) -> bool:
    try:
        check(asked)
    except (NotOurClient, OAuthError):
        return True
    return False


#: One request for each check that it refuses, and no other check does.
ALONE: Mapping[str, Asked] = {
    "check_client_id": _asked(repeated=("client_id",)),
    "check_client_known": _asked(None),
    "check_redirect_uri_given": _asked(repeated=("redirect_uri",)),
    "check_redirect_uri_registered": _asked(redirect_uri=URI + "x"),
    "check_no_repeats": _asked(repeated=("state",)),
    "check_size": _asked(nonce="x" * 9_000),
    "check_no_request_object": _asked(request="x"),
    "check_no_request_uri": _asked(request_uri="x"),
    "check_no_registration": _asked(registration="x"),
    "check_response_type": _asked(response_type="token"),
    "check_response_mode": _asked(response_mode="fragment"),
    "check_grant_type": _asked(replace(CLIENT, grant_types=("refresh_token",))),
    "check_resource": _asked(resource="https://api.example"),
    "check_scope": _asked(scope="nothing"),
    "check_prompt": _asked(prompt="none login"),
    "check_max_age": _asked(max_age="-1"),
    "check_pkce_method": _asked(code_challenge_method="plain"),
    "check_pkce_challenge": _asked(code_challenge="short"),
    "check_pkce_present": _asked(code_challenge=None, code_challenge_method=None),
    "check_claims": _asked(claims="[]"),
}


def test_a_good_request_passes_every_check() -> None:
    """docs/architecture.md: the checks only refuse."""
    check_request(_asked(), ALL)


def test_every_check_has_a_request_of_its_own() -> None:
    """docs/architecture.md: the table below is of every check, in their order."""
    assert list(ALONE) == [check.__name__ for check in ALL]


@each_of("name", ALONE)
def test_a_check_is_needed(name: str) -> None:
    """docs/architecture.md: the request is refused with the check, and passes all the others without it."""
    with pytest.raises((NotOurClient, OAuthError)):
        check_request(ALONE[name], ALL)
    others = [check for check in ALL if check.__name__ != name]
    assert [check.__name__ for check in others if _may_run(check, name) and _refuses(check, ALONE[name])] in (
        [],
        ["check_no_repeats"],  # which sees every repeated name, after the cut
    )


def _may_run(check: Check, missing: str) -> bool:
    # Without a client none of the later checks can run; they are in their order.
    return missing != "check_client_known" or check in BEFORE_TRUST[:2]


def test_the_cut_is_where_the_redirect_uri_is_trusted() -> None:
    """RFC 6749 §4.1.2.1: before it a page (NotOurClient), after it a redirect (OAuthError): never the other way round."""
    for check in ALL:
        expected = NotOurClient if check in BEFORE_TRUST else OAuthError
        with pytest.raises(expected):
            check(ALONE[check.__name__])


def test_the_first_that_refuses_speaks() -> None:
    """docs/architecture.md: the order is the tuple's: a faulty redirect URI hides every later fault."""
    with pytest.raises(NotOurClient):
        check_request(_asked(redirect_uri="https://evil.example/", scope="nothing", response_type="x"), ALL)


@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "prompt", "max_age", "claims", "response_mode"]), st.text(max_size=30)
    )
)
def test_no_input_breaks_a_check(changes: dict[str, str]) -> None:
    """RFC 6749 §4.1.2.1: whatever comes, the outcome is a request or one of the two refusals."""
    given: dict[str, Any] = {name: value or None for name, value in changes.items()}
    asked = _asked(**given)
    try:
        check_request(asked, ALL)
    except (NotOurClient, OAuthError):
        return
    build_request(asked)


@each_of(
    ("repeated", "changes", "expected"),
    [
        ((), {}, (URI, "s", "query")),
        ((), {"response_mode": "form_post"}, (URI, "s", "form_post")),
        ((), {"response_mode": "nonsense"}, (URI, "s", "query")),
        ((), {"state": None}, (URI, None, "query")),
        (("state",), {}, (URI, None, "query")),
        (("response_mode",), {"response_mode": "form_post"}, (URI, "s", "query")),
    ],
)
def test_where_an_error_goes(
    repeated: tuple[str, ...], changes: dict[str, Any], expected: tuple[str, str | None, str]
) -> None:
    """RFC 6749 §3.1: of what is repeated nothing is believed (RFC 6749 §3.1, §4.1.2.1)."""
    assert _address(_asked(repeated=repeated, **changes)) == expected


_NONE: dict[str, str | None] = {"code_challenge": None, "code_challenge_method": None}


@each_of("require", [None, True, False])
@each_of("public", [False, True])
@each_of(
    ("sent", "binds"),
    [
        ({}, "challenge"),
        ({"nonce": "n"}, "challenge"),
        (_NONE, "nothing"),
        (_NONE | {"nonce": "n"}, "nonce"),
        (_NONE | {"nonce": "n", "scope": "email"}, "nothing"),
        (_NONE | {"nonce": ""}, "nothing"),
    ],
)
def test_what_binds_a_code_to_its_browser(
    require: bool | None, public: bool, sent: dict[str, str | None], binds: str
) -> None:
    """RFC 9700 §2.1.1: PKCE for public clients always; for confidential ones a nonce with openid does as well, unless the
    operator demands PKCE, or allows neither."""
    client = replace(CLIENT, require_pkce=require, token_endpoint_auth_method="none" if public else None)
    asked = _asked(client, **{name: value or None for name, value in sent.items()})
    allowed = {"challenge"}
    if not public and require is not True:
        allowed |= {"nonce"} if require is None else {"nonce", "nothing"}
    if binds in allowed:
        check_request(asked, ALL)
        assert is_unbound(asked) is (binds == "nothing")
        return
    with pytest.raises(OAuthError) as refusal:
        check_request(asked, ALL)
    assert refusal.value.error == "invalid_request"
    named = ["code_challenge", "S256"] + ([] if public or require else ["nonce", "openid", "require_pkce"])
    assert all(word in refusal.value.description for word in named)


@each_of("require", [None, True, False])
def test_a_stranger_always_sends_a_challenge(require: bool | None) -> None:
    """RFC 9700 §2.1.1: a nonce is not enough for a client that the operator did not register, whatever its row says."""
    for source in ("registration", "document"):
        client = replace(CLIENT, require_pkce=require, source=source)
        check_request(_asked(client), ALL)
        with pytest.raises(OAuthError, match="invalid_request"):
            check_request(_asked(client, **_NONE, nonce="n"), ALL)


def test_default_scopes_come_with_openid() -> None:
    """A client that asks only for openid gets what its operator added; what it may not have stays out."""
    client = replace(CLIENT, default_scopes=("email", "groups"), scope=("openid", "email", "profile"))
    assert _request(client, scope="openid").scope == ("openid", "email")
    assert _request(client, scope="openid").disclosed == ("openid", "email")
    assert _request(client, scope="profile").scope == ("profile",)


def test_scope_is_what_may_be_granted() -> None:
    """docs/endpoints.md: known scopes that the client may have; what `claims` asks for is there too, as its scope."""
    narrow = replace(CLIENT, scope=("openid", "email"))
    request = _request(
        narrow, scope="email phone openid x", claims='{"userinfo":{"phone_number":null,"email":null}}'
    )
    assert (request.scope, request.disclosed) == (("openid", "email"), ("openid", "email"))
    asked = _request(scope="openid", claims='{"id_token":{"phone_number":null}}')
    assert (asked.scope, set(asked.disclosed)) == (("openid",), {"openid", "phone"})


# --- what happens next ---


def _step(
    request: AuthorizationRequest,
    session: Session | None = SESSION,
    remembered: tuple[str, ...] = (),
    **known: Any,
) -> str:
    """The next step, or the error's code. A user who began without a look at the session is not signed in by an earlier one."""
    attempts = known.pop("sign_in_attempts", 1)
    state = State(NOW, sign_in_attempts=attempts, **known)
    _, effect = step(state, CameBack(), Facts(request, session, remembered), now=NOW)
    match effect:
        case SendError(error):
            return error.error
        case ToSignIn():
            return "login"
        case AskConsent():
            return "consent"
        case SendCode():
            return "issue"
        case _:
            raise AssertionError(effect)


@each_of(
    ("client", "prompt", "session", "remembered", "expected"),
    [
        (CLIENT, None, SESSION, (), "issue"),
        (CLIENT, None, None, (), "login"),
        (CLIENT, "none", None, (), "login_required"),
        (CLIENT, "none", SESSION, (), "issue"),
        (CLIENT, "login", SESSION, (), "login"),
        (CLIENT, "select_account", SESSION, (), "login"),
        (CLIENT, "consent", SESSION, ("openid", "email"), "consent"),
        (THIRD, None, SESSION, (), "consent"),
        (THIRD, None, SESSION, ("openid",), "consent"),
        (THIRD, None, SESSION, ("openid", "email", "phone"), "issue"),
        (THIRD, "none", SESSION, ("openid",), "consent_required"),
        (THIRD, "none", SESSION, ("openid", "email"), "issue"),
        (THIRD, "none", None, ("openid", "email"), "login_required"),
        (THIRD, "login consent", SESSION, (), "login"),
    ],
)
def test_what_comes_next(
    client: Client, prompt: str | None, session: Session | None, remembered: tuple[str, ...], expected: str
) -> None:
    """Core §3.1.2.1, §3.1.2.3, §3.1.2.4: sign in, then consent, then the code; prompt=none shows nothing."""
    assert _step(_request(client, prompt=prompt), session, remembered) == expected


@each_of(
    ("client", "redirect_uri", "counts"),
    [
        (PUBLIC, "https://rp.example.org/callback", True),
        (PUBLIC, "http://127.0.0.1:5/cb", False),
        (PUBLIC, "http://[::1]:5/cb", False),
        (PUBLIC, "http://localhost:5/cb", False),
        (PUBLIC, "https://localhost/cb", False),
        (PUBLIC, "com.example.app:/cb", False),
        (replace(PUBLIC, first_party=True), "http://127.0.0.1:5/cb", True),
        (replace(THIRD, redirect_uris=ON_DEVICE), "http://127.0.0.1:5/cb", True),
        (replace(THIRD, redirect_uris=ON_DEVICE), "com.example.app:/cb", True),
    ],
)
def test_a_program_on_the_device_is_asked_for_each_time(
    client: Client, redirect_uri: str, counts: bool
) -> None:
    """RFC 8252 §8.6: no earlier yes counts for a public client whose answer goes to a program on the user's device."""
    for prompt, otherwise in ((None, "consent"), ("none", "consent_required")):
        request = _request(client, prompt=prompt, redirect_uri=redirect_uri)
        assert _step(request, SESSION, ("openid", "email")) == ("issue" if counts else otherwise)


@each_of(("attempts", "expected"), [(0, "login"), (1, "login"), (2, "login_required"), (9, "login_required")])
def test_after_one_more_try_the_client_is_told(attempts: int, expected: str) -> None:
    """OpenID Connect Core §3.1.2.1, docs/endpoints.md: unmet after one more try: login_required."""
    assert MAX_SIGN_IN_ATTEMPTS == 2
    assert _step(_request(prompt="login"), sign_in_attempts=attempts) == expected
    assert _step(_request(), None, sign_in_attempts=attempts) == expected


@each_of(
    ("session", "progress", "fresh"),
    [
        ({}, {}, False),
        ({"created_at": NOW, "auth_time": NOW}, {}, True),
        ({"created_at": NOW, "auth_time": NOW}, {"sid_before": "sid-1"}, False),
        ({"created_at": NOW - 30, "auth_time": NOW}, {}, True),
        ({"created_at": NOW - 31, "auth_time": NOW}, {}, False),
        ({"created_at": NOW - 3, "auth_time": NOW - 3}, {"sid_before": "sid-1"}, False),
        ({"created_at": NOW, "auth_time": NOW - 30}, {}, True),
        ({"created_at": NOW, "auth_time": NOW - 31}, {}, False),
        ({"auth_time": NOW}, {"signed_in_sid": "sid-1"}, True),
        ({"auth_time": NOW - 31}, {"signed_in_sid": "sid-1"}, False),
        ({"auth_time": NOW}, {"signed_in_sid": "sid-2"}, False),
    ],
)
@each_of("wish", [{"prompt": "login"}, {"max_age": "0"}])
def test_what_is_a_new_sign_in(
    session: dict[str, Any], progress: dict[str, Any], fresh: bool, wish: dict[str, Any]
) -> None:
    """OpenID Connect Core §3.1.2.1, docs/endpoints.md: reported for this interaction, or begun after it, and authenticated 30 s before it at most."""
    assert _step(_request(**wish), replace(SESSION, **session), **progress) == ("issue" if fresh else "login")


@each_of(("max_age", "expected"), [("100", "login"), ("101", "issue"), ("9999999999", "issue")])
def test_max_age_is_counted_from_auth_time(max_age: str, expected: str) -> None:
    """OpenID Connect Core §3.1.2.1: re-authentication when more than max_age may have gone by, in whole seconds."""
    assert _step(_request(max_age=max_age)) == expected


@each_of(
    ("claims", "acr", "expected"),
    [
        ('{"id_token":{"acr":{"essential":true,"value":"gold"}}}', "gold", "issue"),
        (
            '{"id_token":{"acr":{"essential":true,"value":"gold"}}}',
            "lead",
            "unmet_authentication_requirements",
        ),
        ('{"id_token":{"acr":{"essential":true,"values":["a","gold"]}}}', "gold", "issue"),
        ('{"id_token":{"acr":{"essential":true}}}', None, "unmet_authentication_requirements"),
        ('{"id_token":{"acr":{"value":"gold"}}}', "lead", "issue"),
        ('{"id_token":{"acr":null}}', None, "issue"),
    ],
)
def test_an_essential_acr_must_be_met(claims: str, acr: str | None, expected: str) -> None:
    """OpenID Connect Core §5.5.1.1: essential and unmet is an error of its own; voluntary is not."""
    assert _step(_request(claims=claims), replace(SESSION, acr=acr), sign_in_attempts=2) == expected


@each_of(("hint", "expected"), [(None, "issue"), ("ada", "issue"), ("bob", "login_required")])
def test_a_hint_asks_for_its_user(hint: str | None, expected: str) -> None:
    """Core §3.1.2.2: no answer for another than the user of id_token_hint."""
    assert _step(_request(hint=hint, prompt="none")) == expected


def test_a_consent_does_not_replace_a_sign_in() -> None:
    """OpenID Connect Core §3.1.2.1: who agreed must still meet what was asked of the sign-in."""
    agreed = Consent(SESSION.user_id, ("openid",))
    assert _step(_request(THIRD, prompt="login"), consent=agreed) == "login"
    assert _step(_request(THIRD), consent=agreed) == "issue"


def test_a_consent_is_of_who_gave_it() -> None:
    """docs/security.md: what somebody else agreed to in this interaction counts for nobody who signs in after them."""
    assert _step(_request(THIRD), consent=Consent("bob", ("openid", "email"))) == "consent"


_SCOPE_TOKEN = st.text(
    "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"\\'), min_size=1, max_size=8
)  # RFC 6749 §3.3
_NO_SPACE = st.sampled_from(["\t", "\n", "\x0b", "\x1f", "\x85", "\xa0", "\u2003", "\u3000"])


@given(
    st.lists(st.sampled_from(["openid", "email", "profile"]) | _SCOPE_TOKEN, min_size=1, max_size=6),
    _NO_SPACE,
)
def test_scopes_are_words_between_spaces(words: list[str], odd: str) -> None:
    """RFC 6749 §3.3: `scope-token *( SP scope-token )`: nothing else parts them, and unknown ones count for nothing."""
    given = [word for word in CLIENT.scope if word in words]
    if given:
        assert set(_request(scope=" ".join(words)).scope) == set(given)
    with pytest.raises(OAuthError) as refused:
        check_request(_asked(scope=odd.join([*words, "openid", "email"])), ALL)
    assert refused.value.error == "invalid_scope"


@given(st.sets(st.sampled_from(["login", "consent", "select_account"]), min_size=1), _NO_SPACE, _SCOPE_TOKEN)
def test_prompts_are_words_between_spaces(words: set[str], odd: str, other: str) -> None:
    """OpenID Connect Core §3.1.2.1: a list by spaces, in any order; `none` only by itself."""
    assert _request(prompt=" ".join(words)).prompt == words
    wrong = [odd.join(["login", *words]), " ".join([*words, "none"]), "LOGIN"]
    if other not in {"login", "consent", "select_account", "none"}:
        wrong.append(" ".join([*words, other]))
    for prompt in wrong:
        with pytest.raises(OAuthError):
            check_request(_asked(prompt=prompt), ALL)


@given(
    st.from_regex("[0-9]{1,10}", fullmatch=True),
    st.characters(exclude_characters="0123456789"),
    st.integers(0, 10),
)
def test_max_age_is_digits(digits: str, odd: str, at: int) -> None:
    """OpenID Connect Core §3.1.2.1: seconds; of all that Python takes for a number nothing but ASCII digits."""
    assert _request(max_age=digits).max_age == int(digits)
    at = min(at, len(digits))
    with pytest.raises(OAuthError):
        check_request(_asked(max_age=digits[:at] + odd + digits[at:]), ALL)


_CLAIM = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "essential": st.booleans(),
        "value": st.text(max_size=3),
        "values": st.lists(st.text(max_size=3)),
    },
)
_CLAIMS = st.dictionaries(st.text(min_size=1, max_size=8), _CLAIM, max_size=3)


@given(_CLAIMS, _CLAIMS, st.sampled_from(["", " ", "\r\n\t"]), st.booleans())
def test_claims_are_json_of_their_form(
    id_token: dict[str, Any], userinfo: dict[str, Any], blank: str, ascii_only: bool
) -> None:
    """OpenID Connect Core §5.5, RFC 8259: each way to write the object; what is no JSON is refused."""
    wanted = {"id_token": id_token, "userinfo": userinfo, "other": 1}
    text = json.dumps(wanted, ensure_ascii=ascii_only, separators=(f"{blank},{blank}", f"{blank}:{blank}"))
    request = _request(claims=f"{blank}{text}{blank}")
    for asked, found in ((id_token, request.id_token_claims), (userinfo, request.userinfo_claims)):
        assert {name: claim.essential for name, claim in found.items()} == {
            name: (detail or {}).get("essential", False) for name, detail in asked.items()
        }
    for odd in (
        f"[{text}]",
        text[:-1],
        f"{text}x",
        text[:-1] + ', "x": NaN}',
        text[:-1] + ', "x": -Infinity}',
    ):
        with pytest.raises(OAuthError):
            check_request(_asked(claims=odd), ALL)


@given(
    st.text(max_size=12) | st.lists(st.text("eyJ.-_=", max_size=8), max_size=4).map(".".join),
    st.text(min_size=1, max_size=8),
)
def test_an_unsigned_object_says_state_and_mode(hostile: str, state: str) -> None:
    """RFC 7515 §3.1, §7.1: three parts of base64url without padding; anything else says nothing, and breaks nothing."""

    def part(value: dict[str, str]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = part({"state": state, "response_mode": "form_post"})
    unsigned = f"{part({'alg': 'none'})}.{claims}."
    assert _address(_asked(state=None, request=unsigned)) == (URI, state, "form_post")
    for other in (hostile, f"{unsigned}x", f"{part({'alg': 'HS256'})}.{claims}."):
        assert _address(_asked(state=None, request=other)) == (URI, None, "query")
