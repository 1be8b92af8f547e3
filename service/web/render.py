"""JSON answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import falcon

from service.json_text import to_bytes


def send_json(resp: falcon.Response, value: Mapping[str, Any], *, status: int = 200) -> None:
    """Answer with a JSON object that no cache may keep."""
    resp.status_code = status
    resp.content_type = "application/json"
    resp.set_header("Cache-Control", "no-store")
    resp.data = to_bytes(value)
