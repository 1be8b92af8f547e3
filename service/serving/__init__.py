"""How the service is served: gunicorn's worker, which gives a request a thread only once it has arrived completely.

Nothing here knows the application. `framing` finds where a request ends, `connection` holds one client's connection,
and `worker` is gunicorn's.
"""
