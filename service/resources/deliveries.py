"""`GET /api/oidc/deliveries`: logout tokens that clients have not received yet, or could not receive. Needs the admin token.

Spec: OpenID Connect Back-Channel Logout 1.0 §2.5
"""

from __future__ import annotations

import falcon

from service.resources.parts import Parts, Resource
from service.web.mounts import Mount
from service.web.render import send_json


class AllDeliveries(Resource):
    """`/api/oidc/deliveries`."""

    admin_only = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the first thousand: those that wait, the next one due first, then the others."""
        found = self.parts.deliveries.shown(now=req.context.now)
        send_json(resp, {"deliveries": [delivery.shown() for delivery in found]})


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Its path."""
    return (Mount("/api/oidc/deliveries", AllDeliveries(parts)),)
