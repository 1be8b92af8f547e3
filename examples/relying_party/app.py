"""A relying party in a few dozen lines: signs users in through pylon-oidc. README.md says how to run it."""

import os
import secrets
from html import escape
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.jwk import KeySet

ISSUER = os.environ.get("ISSUER", "http://localhost:4321")
PORT = int(os.environ.get("PORT", "9000"))
HERE = f"http://localhost:{PORT}"
CLIENT = {"client_id": "example", "client_secret": "example-secret-for-this-machine-only"}

provider = requests.get(f"{ISSUER}/.well-known/openid-configuration", timeout=10).json()
browsers: dict[str, dict] = {}  # what is known of each browser, by its cookie


def new_client() -> OAuth2Session:
    """Authlib's client; it sends the secret by `Basic`, and a PKCE challenge."""
    asked = {"scope": "openid profile email", "redirect_uri": f"{HERE}/callback"}
    return OAuth2Session(**CLIENT, **asked, code_challenge_method="S256")


def verified_claims(id_token: str, nonce: str) -> dict:
    """The claims of an ID token, after its signature, issuer, audience, times and nonce were checked."""
    keys = KeySet.import_key_set(requests.get(provider["jwks_uri"], timeout=10).json())
    claims = jwt.decode(id_token, keys, algorithms=["RS256"]).claims
    wanted = {"iss": ISSUER, "aud": CLIENT["client_id"], "nonce": nonce}
    rules = {name: {"essential": True, "value": value} for name, value in wanted.items()}
    jwt.JWTClaimsRegistry(leeway=60, exp={"essential": True}, **rules).validate(claims)
    return claims


class Handler(BaseHTTPRequestHandler):
    """`/`, `/sign-in`, `/callback`, and a POST that signs out."""

    def do_GET(self) -> None:
        """Every page."""
        url, known = urlsplit(self.path), browsers.get(self.cookie(), {})
        if url.path == "/sign-in":
            verifier, nonce, cookie = (secrets.token_urlsafe(32) for _ in range(3))
            to, state = new_client().create_authorization_url(
                provider["authorization_endpoint"], code_verifier=verifier, nonce=nonce
            )
            browsers[cookie] = {"state": state, "verifier": verifier, "nonce": nonce}
            self.answer(303, "", to, f"example={cookie}; HttpOnly; SameSite=Lax; Path=/")
        elif url.path == "/callback":
            came = dict(parse_qsl(url.query))
            if "state" not in known or (came.get("state"), came.get("iss")) != (known.pop("state"), ISSUER):
                self.answer(400, "<p>This does not answer a question of ours.</p>")
            elif "code" not in came:
                self.answer(403, f"<p>Not signed in: {escape(came.get('error', 'no code'))}.</p>")
            else:
                client = new_client()
                tokens = client.fetch_token(
                    provider["token_endpoint"], code=came["code"], code_verifier=known["verifier"]
                )
                claims = verified_claims(tokens["id_token"], known["nonce"])
                told = client.get(provider["userinfo_endpoint"]).json()  # name, email: what the scopes allow
                known["claims"] = claims | (told if told["sub"] == claims["sub"] else {})
                known["id_token"] = tokens["id_token"]
                self.answer(303, "", "/")
        elif "claims" in known:
            rows = "".join(f"<dt>{escape(k)}<dd>{escape(str(v))}" for k, v in known["claims"].items())
            self.answer(200, f'<dl>{rows}</dl><form method="post"><button>Sign out</button></form>')
        else:
            self.answer(200, '<p><a href="/sign-in">Sign in</a></p>')

    def do_POST(self) -> None:
        """Sign out here, then at the provider, which sends the browser back."""
        known = browsers.pop(self.cookie(), {})
        query = {"id_token_hint": known.get("id_token", ""), "post_logout_redirect_uri": f"{HERE}/"}
        self.answer(303, "", f"{provider['end_session_endpoint']}?{urlencode(query)}")

    def cookie(self) -> str:
        """The value of the browser's cookie."""
        found = SimpleCookie(self.headers.get("Cookie")).get("example")
        return found.value if found else ""

    def answer(self, status: int, body: str, location: str = "", cookie: str = "") -> None:
        """Send a page, or a redirect."""
        self.send_response(status)
        given = {"Location": location, "Set-Cookie": cookie, "Content-Type": "text/html; charset=utf-8"}
        for name, value in given.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(
            f'<!doctype html><html lang="en"><title>Example</title><h1>Example</h1>{body}'.encode()
        )


if __name__ == "__main__":
    print(f"Open {HERE}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
