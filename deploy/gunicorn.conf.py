"""gunicorn's settings: those that the package carries, where each has its reason beside it.

gunicorn -c deploy/gunicorn.conf.py service.wsgi:app
"""

from service.launch.gunicorn_conf import *  # noqa: F403
