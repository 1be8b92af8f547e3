"""`/healthz` and `/readyz`: whether the process lives, and whether it can do its work. They never look at `Host`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import falcon

from service.resources.parts import Parts, Resource
from service.storage.interface import StoreUnavailable
from service.web.mounts import Mount
from service.web.render import send_json
from service.web.routing import raw_target, target_lacks_host


class Alive:
    """`GET /healthz`."""

    any_host = True

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `ok` while the process lives."""
        resp.content_type = "text/plain; charset=utf-8"
        resp.data = b"ok"


class Ready(Resource):
    """`GET /readyz`: whether the store can be asked, whether its schema is ours, whether there are keys."""

    any_host = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Each part, and 503 when one is not well. That the server hands on no raw path, or not all of it, is no fault, and is said."""
        store, keyring = self.parts.store, self.parts.keys
        database, schema = "unavailable", "unknown"
        try:
            state = store.schema_state()
            schema = "ok" if state == "current" else state
            database = "ok" if state == "behind" or store.write_refusal() is None else "read-only"
        except StoreUnavailable:
            pass  # told by the two values above
        keys = "unavailable"
        told: Mapping[str, Any] = {}
        try:
            audiences = self.parts.policies.tables.values()
            can_sign = all(keyring.to_sign(each.alg).can_sign(each.alg, each.secret) for each in audiences)
            keys = "ok" if can_sign else "not configured"
            told = keyring.status()
        except StoreUnavailable:
            pass  # of keys in the database; told by the value above
        parts = {"database": database, "schema": schema, "keys": keys, **told}
        if raw_target(req.env) is None:
            parts["raw_path"] = "not given by this server"
        elif target_lacks_host(req.env):
            parts["raw_path"] = "given by this server without a host or a fragment"
        ready = database == "ok" and schema in {"ok", "ahead"} and keys != "unavailable"
        send_json(resp, {"status": "ok" if ready else "unavailable", **parts}, status=200 if ready else 503)


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Where they are: a probe knows no issuer."""
    return (Mount("/healthz", Alive(), at_root=True), Mount("/readyz", Ready(parts), at_root=True))
