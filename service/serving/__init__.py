"""How the service is served: gunicorn's worker, which gives a request a thread only when all of it is there.

Nothing here knows the application: `framing` is a grammar of bytes, `connection` a client's, `worker` is gunicorn's.
"""
