"""`/healthz` and `/readyz`: whether the process is alive, and whether it can work. They ignore `Host`."""

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
        """Answer `ok` while the process is alive."""
        resp.content_type = "text/plain; charset=utf-8"
        resp.data = b"ok"


class Ready(Resource):
    """`GET /readyz`: whether the store is available, its schema is right, and there are keys."""

    any_host = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the state of each part, and 503 if one does not work. A missing raw path is reported, but is not a fault."""
        store, keyring = self.parts.store, self.parts.keys
        database, schema = "unavailable", "unknown"
        try:
            state = store.schema_state()
            schema = "ok" if state == "current" else state
            database = "ok" if state == "behind" or store.write_refusal() is None else "read-only"
        except StoreUnavailable:
            pass  # the two values above report it
        keys = "unavailable"
        told: Mapping[str, Any] = {}
        try:
            audiences = self.parts.policies.tables.values()
            can_sign = all(
                keyring.to_sign(alg).can_sign(alg, each.secret)
                for each in audiences
                for alg in each.signing_algs
            )
            keys = "ok" if can_sign else "not configured"
            told = keyring.status()
        except StoreUnavailable:
            pass  # for keys in the database; the value above reports it
        parts = {"database": database, "schema": schema, "keys": keys, **told}
        if raw_target(req.env) is None:
            parts["raw_path"] = "not passed by this server"
        elif target_lacks_host(req.env):
            parts["raw_path"] = "passed by this server without a host or a fragment"
        ready = database == "ok" and schema in {"ok", "ahead"} and keys != "unavailable"
        send_json(resp, {"status": "ok" if ready else "unavailable", **parts}, status=200 if ready else 503)


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Their paths, which do not depend on the issuer."""
    return (Mount("/healthz", Alive(), at_root=True), Mount("/readyz", Ready(parts), at_root=True))
