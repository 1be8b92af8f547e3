"""gunicorn's log, which is ours once the application has set it up."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger


class KeptLogger(Logger):
    """Leaves the log as the application has set it up, also when gunicorn reads its configuration again (HUP)."""

    def setup(self, cfg: Any) -> None:
        """As gunicorn's, until somebody else's handlers are there."""
        level = self.error_log.level
        kept = [handler for handler in self.error_log.handlers if not getattr(handler, "_gunicorn", False)]
        super().setup(cfg)
        if kept:
            self.error_log.handlers = kept
            self.error_log.setLevel(level)
