"""gunicorn's log, which the application sets up."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger


class KeptLogger(Logger):
    """Keeps the log as the application has set it up, also when gunicorn reloads its configuration (HUP)."""

    def setup(self, cfg: Any) -> None:
        """Set up gunicorn's log, unless other handlers are already set."""
        level = self.error_log.level
        kept = [handler for handler in self.error_log.handlers if not getattr(handler, "_gunicorn", False)]
        super().setup(cfg)
        if kept:
            self.error_log.handlers = kept
            self.error_log.setLevel(level)
