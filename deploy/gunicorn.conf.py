"""gunicorn's settings, from the package; the module explains each one.

gunicorn -c deploy/gunicorn.conf.py service.wsgi:app
"""

from service.launch.gunicorn_conf import *  # noqa: F403
