"""`PUT /api/auth/users/{user_id}`: the app's data about a user, for userinfo and ID tokens. Needs the admin token."""

from __future__ import annotations

import falcon

from service.resources.parts import Parts, Resource
from service.resources.sign_in_request import AboutUser, is_user_id
from service.web.bodies import read_json
from service.web.errors import ApiError
from service.web.mounts import Mount
from service.web.render import send_json


class OneUser(Resource):
    """The user's record."""

    admin_only = True

    def on_put(self, req: falcon.Request, resp: falcon.Response, user_id: str) -> None:
        """Replace the given fields, and keep the others."""
        wanted = read_json(req, AboutUser)
        if not is_user_id(user_id):
            raise ApiError("NOT_FOUND")
        user = self.parts.sessions.remember_user(wanted.about(user_id), now=req.context.now)
        send_json(
            resp,
            {
                "user_id": user_id,
                "claims": user.claims,
                "roles": list(user.roles),
                "tenant_id": user.tenant_id,
                "attributes": user.attributes,
            },
        )


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Its path."""
    return (Mount("/api/auth/users/{user_id}", OneUser(parts), named_by_others=True),)
