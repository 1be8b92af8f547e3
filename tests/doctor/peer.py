"""A provider that is not ours: npm `oidc-provider`, as the benchmark runs it."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import subprocess
from collections.abc import Iterator

from tests.support.gunicorn import PROJECT, clean_environment

PEERS = PROJECT / "bench/peers"
CLIENT, REDIRECT_URI = "bench", "https://rp.example.net/callback"
_SECRET = "a-secret-of-the-peer-that-the-tests-run"
_START_S = 90.0


@contextlib.contextmanager
def run_peer() -> Iterator[int]:
    """Run it.

    Yields:
        The port of its issuer, `http://localhost:<port>`.

    Raises:
        AssertionError: When its packages are not installed, or it does not start.
    """
    # Not by node_modules/.bin: npm 9, which is Debian's, puts no link there.
    own = next(PEERS.glob("node_modules/node-linux-*/bin/node"), None)
    node = str(own) if own else shutil.which("node")
    assert node, "no Node here: run bench/peers/install"
    process = subprocess.Popen(
        [node, "provider.mjs"],
        cwd=PEERS,
        env=clean_environment(
            NODE_ENV="production", PEER_SECRET=_SECRET, PEER_REDIRECT_URI=REDIRECT_URI, PEER_SCOPE="openid"
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], _START_S)
        line = process.stdout.readline() if ready else b""
        assert line, "the peer did not start: run bench/peers/install"
        yield json.loads(line)["port"]
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
