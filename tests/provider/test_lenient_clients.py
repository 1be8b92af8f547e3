"""The behaviours of the OpenID Connect profiles hold as well with `id_token_claims: requested` and `require_pkce: false`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.provider.conftest import LENIENT
from tests.support.gunicorn import PROJECT

HERE: Final = Path(__file__).parent
#: What the profiles test: the code flow, its parameters and errors, userinfo, metadata, sign-out.
FILES: Final = (
    "test_code_flow.py", "test_everywhere.py", "test_form_post.py", "test_logout.py", "test_metadata.py",
    "test_prompts.py", "test_user_claims.py", "test_refresh_tokens.py", "test_codes.py",
)  # fmt: skip
#: They want a request without PKCE refused, which these clients may send.
WANT_PKCE: Final = (
    "test_pkce_is_asked_of_everybody",
    "test_an_error_goes_back_by_redirect",
    "test_errors_come_by_form_too",
)


def test_the_profiles_hold_for_lenient_clients() -> None:
    """OpenID Connect Core §3.1, §5.5: each of these files once more, every confidential client of the app's own lenient."""
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly",
            *(str(HERE / name) for name in FILES), "-k", " and ".join(f"not {name}" for name in WANT_PKCE),
        ],
        cwd=PROJECT, env={**os.environ, LENIENT: "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
