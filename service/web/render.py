"""JSON answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import falcon

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def send_json(resp: falcon.Response, value: Mapping[str, Any], *, status: int = 200) -> None:
    """Answer with a JSON object, never to be kept by a cache."""
    resp.status_code = status
    resp.content_type = "application/json"
    resp.set_header("Cache-Control", "no-store")
    resp.data = _encode(value).encode()
