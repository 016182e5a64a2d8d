"""The application that stands in `INSTALLED_APPS`."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from ssepool.django.checks import check_settings


class SSEPoolConfig(AppConfig):
    """`INSTALLED_APPS += ["ssepool.django"]`: the system check of `SSEPOOL`, and `manage.py ssepool_publish`."""

    name = "ssepool.django"
    """The package."""
    label = "ssepool"
    """Its short name; `django` alone could be anything."""
    verbose_name = "ssepool"
    """Its name for people."""

    def ready(self) -> None:
        """Django is set up."""
        register(check_settings)
