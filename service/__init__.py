"""pylon-oidc: the OpenID Connect provider for an app that already signs its users in.

A map of the package. Imports point in one direction only, and only `app` knows all resources.

    wsgi         app = get_app(), for gunicorn or any WSGI server
    startup      what happens before the port opens: settings, keys, store, and a report of all faults
    app          create_app(settings, store, keys, clock, events); joins the routes of all resources
    settings/    frozen Settings; the only reader of the environment
    issuer       Host grammar, issuer resolution
    keys/        the signing keys: which are accepted, which sign, rotation, encryption, the ring in the database
    sessions     the sessions of signed-in users
    clients      the directory of clients
    events       events, and their listeners
    logs         one JSON line for each event
    web/         the HTTP layer: mounts, bodies, params, errors, auth, cookies, middleware, caching, pages
    resources/   parts, then one file for each family of endpoints with its routes; a responder parses, calls, renders
    protocol/    the rules, as pure functions: authorize, interactions, grants, clients, tokens, …
    storage/     interface, sql (one implementation), sqlite, postgres, migrations/
    doctor/      tests a deployment from outside
    cli/         pylon-oidc
    launch/      starts the server: gunicorn's configuration, granian's start
    serving/     shared by both servers: the plan, gunicorn's worker, granian's bridge to WSGI
"""

__version__ = "0.2.0"
