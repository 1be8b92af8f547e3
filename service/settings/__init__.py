"""Settings: one frozen object, read from the environment once. All faults are reported together.

table          Settings: every setting with its parser and its default
carried        what a file, a shell or an editor added to a value
parsers        one function a setting: the text in, the value out, or what is wrong with it
cross_checks   what settings must agree on
warnings       what is allowed, and odd
reading        `read_settings`: the environment, `NAME_FILE`, and all of the above in their order
faults         the form of a fault
"""

from service.settings.faults import ConfigurationError, Fault
from service.settings.parsers import Secret
from service.settings.reading import (
    Reading,
    given_names,
    in_order,
    platform_port,
    read_settings,
    use_env_file,
)
from service.settings.table import NAMES, Settings

__all__ = [
    "NAMES",
    "ConfigurationError",
    "Fault",
    "Reading",
    "Secret",
    "Settings",
    "given_names",
    "in_order",
    "platform_port",
    "read_settings",
    "use_env_file",
]
