"""Renders the few HTML pages, with autoescape, and serves their stylesheet."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import falcon

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("service"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
    )


def prepare() -> None:
    """Load what pages need. Called before the workers are forked, if users get pages, so that they share its memory."""
    _environment()


def render(template: str, **values: Any) -> bytes:
    """Render a template of `templates/`. The values are escaped."""
    return _environment().get_template(template).render(**values).encode()


def send_page(
    resp: falcon.Response,
    template: str,
    *,
    stylesheet: str,
    status: int = 200,
    logo_uri: str | None = None,
    **values: Any,
) -> None:
    """Answer with a page.

    Args:
        resp: the answer.
        template: the file name in `templates/`.
        stylesheet: path of the stylesheet under the issuer.
        status: HTTP status.
        logo_uri: a client's logo; images may come only from its origin and ours.
        values: values for the template, which are escaped.
    """
    image_origins = "'self'"
    if logo_uri is not None:
        parts = urlsplit(logo_uri)
        image_origins += f" {parts.scheme}://{parts.netloc}"  # a registered URI has no user info
    resp.status_code = status
    resp.content_type = "text/html; charset=utf-8"
    resp.set_headers(
        {
            "Cache-Control": "no-store",
            # No form-action: Chromium also applies it to redirects after a form is sent, and those go to clients.
            "Content-Security-Policy": (
                f"default-src 'none'; style-src 'self'; img-src {image_origins}; "
                "frame-ancestors 'none'; base-uri 'none'"
            ),
            "Referrer-Policy": "same-origin",
        }
    )
    resp.data = render(template, stylesheet=stylesheet, logo_uri=logo_uri, **values)


class Stylesheet:
    """`/oidc/style.css`. Its URL contains a hash of the content, so browsers may keep it for a year."""

    def __init__(self) -> None:
        self._data = files("service").joinpath("static/style.css").read_bytes()
        self.version = hashlib.sha256(self._data).hexdigest()[:12]

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the stylesheet."""
        resp.content_type = "text/css; charset=utf-8"
        resp.set_header("Cache-Control", "public, max-age=31536000, immutable")
        resp.data = self._data
