"""The service as tests load it into gunicorn: on request, a worker hangs in the middle of a token request.

In the folder that `HANG_FOLDER` names, the file `before` lets the next use of a grant hang before its statement,
`after` lets the next answer of the token endpoint hang when all is done. A worker that hangs says so in the file `hangs`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from service.wsgi import app as service
from tests.support.statements import watch


def _hang(when: str) -> None:
    folder = os.environ.get("HANG_FOLDER")
    if folder and (Path(folder) / when).exists():
        (Path(folder) / "hangs").touch()
        threading.Event().wait()


watch(before=lambda sql: _hang("before") if sql.startswith("UPDATE oauth_grant") else None)


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The service."""
    answer: Iterable[bytes] = service(environ, start_response)
    if environ["PATH_INFO"] == "/oidc/token":
        _hang("after")
    return answer
