"""Upgrades keep every grant: what 0.2.0 has given out is good in the version of now.

The row stands here as that version has stored it (revision 0005), with what its client holds.
"""

from __future__ import annotations

import json

from sqlalchemy import text

from service.storage.interface import Kind
from service.storage.sql import SqlStore
from tests.provider.driver import CALLBACK
from tests.storage.stores import engine_of, migrated_to
from tests.storage.worlds import ALG, world_on

NOW = 1_800_000_000
SECRET = "a-client-secret-of-the-test-0123456789"
GRANT_ID = "01lkjkg0bpcckivfn6uut4gg48"
ROW = {
    "id_hash": GRANT_ID,
    "subject": "ada",
    "session_id": "iTrP3G5GXgTk6iHRdHbA7g",
    "client_id": "reports",
    "version": 3,
    "expires_at": 1807776000,
    "outlives_session": True,
    "tokens": bytes.fromhex(
        "26d5adde419336c0cc2f820b8dbe2df06b49d2006b49e0100000000000000007"
        "295e812a38827c3e0d31468adf3cda1e6b49d2006b49e0100000000000000007"
    ),
    "body": json.dumps(
        {
            "issuer": "https://id.example.com",
            "scope": ["openid", "profile", "offline_access"],
            "auth_time": NOW,
            "created_at": NOW,
            "amr": ["pwd"],
            "code": {
                "spent_at": NOW,
                "hash": "8AiSNI_vn8B_bE9HmWCeoA",
                "challenge": "n3zwdWZWhomLWmP2zoEnQiQ22HUHu75TQgisd1tWxG8",
                "uri_hash": "3NaDc6u_ixkbSR-L6IYIOw",
            },
            "refresh": {
                "hash": "pMhC5htvq3IIN1wj36N0CA",
                "fixed_hash": "zQOYT-6gfjnh0ZPqOZ6bqg",
                "made_at": NOW,
                "valid_until": 1802592000,
                "rotation": {
                    "asked_hash": "KJ15KNgeEqVsnaaVIbSjaw",
                    "hash": "TCO-35Dj3OZFBioQa4_rMA",
                    "salt": "4o6foULTrNuymEMSzP6Jlg",
                },
            },
        }
    ),
}
CODE = f"{GRANT_ID}.kn57mRDdaBreVnkZxHlScfLh-PbruDjHT_1eA2SZylcMRZxta"
VERIFIER = "imS5XhewiEa_Avmn-THpmUtXFt5diBP1d3P1SNkVnRUQdat8B5Uzvf3r1DrfBmtg"
ACCESS_TOKENS = (
    f"{GRANT_ID}.if3ZOj9xbzHwLSA0q9N0AOivgjGMGbPY2WFte7cubAYNaGNcN",
    f"{GRANT_ID}.97HIRjEdiFCFuR4slg754Nmh3ZrjnKG49VpPWmrpqkUv_ItaS",
)
REFRESH_TOKENS = (
    f"{GRANT_ID}.BtzLKEUbgp9n1Bh-2T3Odg.-WpT8YZGE4xfUQdnKyXHFgnrJWqN",
    f"{GRANT_ID}.wmUfNuzaXIEtIysb6nbxKg.-WpT8YZGE4xfUQdnKyXHFgrLxZJH",
)


def test_what_0_2_0_has_given_out_goes_on(unmigrated_store: SqlStore, empty_database_url: str) -> None:
    """Its access tokens live, a refresh is repeated within the grace and goes on, and the code's reuse ends it."""
    migrated_to(empty_database_url, "0005")
    engine = engine_of(empty_database_url)
    names = ", ".join(ROW)
    values = ", ".join(f":{name}" for name in ROW)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO oauth_grant ({names}) VALUES ({values})"), ROW)
    engine.dispose()
    unmigrated_store.migrate()
    assert unmigrated_store.schema_state() == "current"

    world = world_on(unmigrated_store, empty_database_url)
    world.provider.clock.now = NOW
    metadata = {
        "client_id": "reports",
        "client_secret": SECRET,
        "redirect_uris": [CALLBACK],
        "first_party": True,
        "id_token_signed_response_alg": ALG,
    }
    assert world.app.call("POST", "/api/oidc/clients", metadata).status == 201
    rp = world.provider.rp("reports", secret=SECRET, redirect_uri=CALLBACK)
    assert [rp.introspect(token).json()["active"] for token in ACCESS_TOKENS] == [True, True]
    repeated = rp.refresh(REFRESH_TOKENS[0]).json()
    assert (repeated["access_token"], repeated["refresh_token"]) == (ACCESS_TOKENS[1], REFRESH_TOKENS[1])
    refreshed = rp.refresh(REFRESH_TOKENS[1])
    assert refreshed.status == 200, refreshed
    form = {"code": CODE, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
    again = rp.post("/oidc/token", {"grant_type": "authorization_code", **form})
    assert again.json()["error"] == "invalid_grant"
    assert unmigrated_store.get(Kind.GRANT, GRANT_ID, now=NOW) is None
    assert rp.refresh(refreshed.json()["refresh_token"]).status == 400
