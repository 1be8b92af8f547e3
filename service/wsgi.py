"""The WSGI callable: `service.wsgi:app`."""

import sys

from service.app import get_app
from service.settings import ConfigurationError

try:
    app = get_app()
except ConfigurationError as error:
    for fault in error.faults:
        print(fault, file=sys.stderr)
    sys.exit(2)
