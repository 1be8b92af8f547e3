"""A Falcon application with nothing in it: what the server and the framework cost by themselves.

One resource, no middleware, no look-up; it gives JSON of the size that `BARE_BYTES` says.
"""

from __future__ import annotations

import os

import falcon

_ANSWER = {"token": "x" * max(1, int(os.environ.get("BARE_BYTES", "400")) - 13)}


class Bare:
    """`/.well-known/bare`."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer."""
        resp.media = _ANSWER

    on_post = on_get


app = falcon.App[falcon.Request, falcon.Response]()
app.add_route("/.well-known/bare", Bare())
