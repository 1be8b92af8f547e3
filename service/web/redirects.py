"""Redirects the browser.

Spec: RFC 6749 §4.1.2; RFC 9207 §2; OAuth 2.0 Form Post Response Mode §4; RFC 9700 §4.12 (303, never 307)
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

import falcon

from service.web.pages import render

#: The only script of all pages; the policy allows it by its hash.
SUBMIT_SCRIPT: Final = "document.forms[0].submit()"
_SCRIPT_HASH: Final = base64.b64encode(hashlib.sha256(SUBMIT_SCRIPT.encode()).digest()).decode()


def with_parameters(uri: str, parameters: Mapping[str, str]) -> str:
    """Add parameters to the query of a URI, and keep those that it has."""
    if not parameters:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(parameters, quote_via=quote)}"


def send_redirect(resp: falcon.Response, uri: str) -> None:
    """Send the browser there with a GET, without a Referer."""
    resp.status_code = 303
    resp.set_headers({"Location": uri, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
    resp.data = b""


def send_authorization_response(
    resp: falcon.Response,
    redirect_uri: str,
    parameters: Mapping[str, str],
    *,
    response_mode: str,
    stylesheet: str,
) -> None:
    """Send the answer to an authorization request to the client.

    Args:
        resp: the answer.
        redirect_uri: the verified redirect URI.
        parameters: the parameters for the client.
        response_mode: `query`, or `form_post` for a form that posts itself.
        stylesheet: path of the stylesheet under the issuer, for browsers without scripts.
    """
    if response_mode != "form_post":
        send_redirect(resp, with_parameters(redirect_uri, parameters))
        return
    resp.status_code = 200
    resp.content_type = "text/html; charset=utf-8"
    resp.set_headers(
        {
            "Cache-Control": "no-store",
            # Only the origin: some clients check who posts to them.
            "Referrer-Policy": "strict-origin",
            "Content-Security-Policy": (
                f"default-src 'none'; script-src 'sha256-{_SCRIPT_HASH}'; style-src 'self'; "
                "frame-ancestors 'none'; base-uri 'none'"
            ),
        }
    )
    # The stylesheet is for browsers without scripts: loading it would delay a form that posts itself.
    resp.data = render(
        "form_post.html",
        action=redirect_uri,
        parameters=parameters,
        script=SUBMIT_SCRIPT,
        stylesheet=stylesheet,
    )
