"""pylon-oidc: the OpenID Connect provider beside an app that already signs its users in.

A map of the package; arrows point one way, and only `app` knows the concrete parts.

    wsgi         app = get_app(), for gunicorn or any WSGI server
    startup      what is decided before the port opens: settings, keys, store, every fault at once
    app          create_app(settings, store, keys, sessions, clock); the only route table
    settings     frozen Settings; the only reader of the environment
    issuer       Host grammar, issuer resolution, every URL built from it
    keyring      which key signs, which are published; JWKS; sign and verify
    key_material, key_file   which keys we take, and the file of one
    sessions     who is signed in
    logs         one JSON line an event
    web/         HTTP without protocol: bodies, params, errors, auth, middleware, caching, pages
    resources/   one file a family of endpoints; a responder parses, calls, renders
    protocol/    the rules, pure: models, claims, tokens, metadata, handles
    storage/     interface, sql (one implementation), sqlite, postgres, migrations
    cli/         pylon-oidc: check, migrate, sessions, sweep
"""

__version__ = "0.1.0"
