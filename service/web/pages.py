"""The few HTML pages, rendered with autoescape."""

from __future__ import annotations

from functools import cache
from typing import Any

import falcon
from jinja2 import Environment, PackageLoader, StrictUndefined

#: Nothing loads but our own stylesheet; no page of ours may be framed.
_CSP = "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'"


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("service"), autoescape=True, undefined=StrictUndefined, auto_reload=False
    )


def send_page(resp: falcon.Response, template: str, *, status: int = 200, **values: Any) -> None:
    """Answer with a page.

    Args:
        resp: the answer.
        template: its name in `templates/`.
        status: HTTP status.
        values: what the template shows; escaped.
    """
    resp.status_code = status
    resp.content_type = "text/html; charset=utf-8"
    resp.set_headers(
        {
            "Cache-Control": "no-store",
            "Content-Security-Policy": _CSP,
            "Referrer-Policy": "same-origin",
        }
    )
    resp.data = _environment().get_template(template).render(**values).encode()
