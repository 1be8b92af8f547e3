"""Starts the server: what `pylon-oidc serve` runs, and `deploy/gunicorn.conf.py` imports.

gunicorn_conf  gunicorn's settings, taken from `serving.plan`
granian        the same for granian, as far as it supports them
binding        which addresses must not be bound, and why
"""
