"""`PUT /api/auth/users/{user_id}`: what the app knows of a user, for userinfo and ID tokens. For the admin token."""

from __future__ import annotations

from collections.abc import Callable

import falcon

from service.resources.sign_in_request import AboutUser, is_user_id
from service.sessions import LocalSessions
from service.web.auth import AdminAuth
from service.web.bodies import read_json
from service.web.errors import ApiError
from service.web.render import send_json


class OneUser:
    """The user's record."""

    def __init__(self, sessions: LocalSessions, admin: AdminAuth, clock: Callable[[], float]) -> None:
        self._sessions = sessions
        self._admin = admin
        self._clock = clock

    def on_put(self, req: falcon.Request, resp: falcon.Response, user_id: str) -> None:
        """Replace the fields that are given; the rest stays as it is."""
        self._admin.require(req)
        wanted = read_json(req, AboutUser)
        if not is_user_id(user_id):
            raise ApiError("NOT_FOUND")
        user = self._sessions.remember_user(wanted.about(user_id), now=int(self._clock()))
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
