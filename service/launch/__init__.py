"""How the program becomes a server: what `pylon-oidc serve` starts, and `deploy/gunicorn.conf.py` imports.

gunicorn_conf  gunicorn's settings, read off `serving.plan`
granian        the same under granian, as far as that has them
binding        what must not be bound, and why
"""
