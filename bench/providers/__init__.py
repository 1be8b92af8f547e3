"""Providers that the benchmark starts: ours by both servers and on both databases, and its peers.

Each is a context manager in a module of its own, which starts it and yields a `Provider`: up, with one confidential
client and a browser whose user is signed in.

    base      what a provider is, and a process that is a server
    ours      pylon-oidc
    node      npm oidc-provider
    hydra     Ory Hydra
    keycloak  Keycloak
    dex       Dex
    django    Django OAuth Toolkit
"""
