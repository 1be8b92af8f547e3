"""pylon-oidc: the OpenID Connect provider for an app that already signs its users in.

A map of the package; arrows point one way, and only `app` knows all resources.

    wsgi         app = get_app(), for gunicorn or any WSGI server
    startup      what is decided before the port opens: settings, keys, store, every fault at once
    app          create_app(settings, store, keys, clock, events); joins the routes of all resources
    settings/    frozen Settings; the only reader of the environment
    issuer       Host grammar, issuer resolution
    keys/        the signing keys: which we take, which sign, how they rotate and are sealed, the ring in the database
    sessions     who is signed in
    clients      which clients there are
    events       what has happened, and who hears of it
    logs         one JSON line an event
    web/         HTTP without protocol: mounts, bodies, params, errors, auth, cookies, middleware, caching, pages
    resources/   parts, then one file a family of endpoints with its routes; a responder parses, calls, renders
    protocol/    the rules, pure: authorize, interactions, grants, clients, tokens, …
    storage/     interface, sql (one implementation), sqlite, postgres, migrations/
    doctor/      a deployment, asked from outside
    cli/         pylon-oidc
    launch/      how it becomes a server: gunicorn's configuration, granian's start
    serving/     what both servers share: the plan, gunicorn's worker, granian's bridge to WSGI
"""

__version__ = "0.2.0"
