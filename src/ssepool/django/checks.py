"""What `manage.py check` says of the settings."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error

from ssepool.django.process import hub_of_settings
from ssepool.errors import ConfigError


def check_settings(**options: Any) -> list[CheckMessage]:
    """An error for the first thing in `settings.SSEPOOL` of which no hub can be made. Opens nothing."""
    try:
        hub_of_settings()
    except ConfigError as error:
        return [Error(str(error), hint="Its sections and names are those of ssepool.toml.", id="ssepool.E001")]
    return []
