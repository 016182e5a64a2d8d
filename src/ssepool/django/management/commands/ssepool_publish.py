"""`manage.py ssepool_publish TOPIC DATA`: publish one event."""

from __future__ import annotations

from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ssepool.core.event import EventFields
from ssepool.django.publishing import publish
from ssepool.errors import SSEPoolError


class Command(BaseCommand):
    """Publish an event over the broker of `SSEPOOL`, and print its id."""

    help = "Publish an event over the broker of SSEPOOL['hub']['broker'], and print its id."
    """What `--help` says."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Say what the command takes."""
        parser.add_argument("topic", metavar="TOPIC", help="The topic.")
        parser.add_argument(
            "data", metavar="DATA", nargs="?", help="The event's data; with --remove the key if left out."
        )
        parser.add_argument("--type", help="The event's type.")
        parser.add_argument("--id", help="The event's id, instead of one that the hub makes.")
        parser.add_argument("--retry", type=int, help="Milliseconds until clients reconnect after a break.")
        parser.add_argument("--private", action="store_true", help="Only for those who may see private events.")
        parser.add_argument("--key", help="It takes the place of the event with this key in the topic.")
        parser.add_argument("--remove", action="store_true", help="Nothing is there under the key any more.")
        parser.add_argument("--json", action="store_true", help="The data is JSON: check it and send it as such.")

    def handle(self, **options: Any) -> None:
        """Do it. Raises `CommandError`."""
        names = ("type", "id", "retry", "private", "key")
        fields: EventFields = {name: options[name] for name in names}  # type: ignore[assignment]
        fields["removed"] = options["remove"]
        text = options["data"]
        if text is None and not options["remove"]:
            raise CommandError("DATA is missing; only --remove does without")
        try:
            data = options["key"] or "" if text is None else msgspec.json.decode(text) if options["json"] else text
            self.stdout.write(publish(options["topic"], data, **fields))
        except msgspec.DecodeError as error:
            raise CommandError(f"the data is not JSON: {error}") from None
        except SSEPoolError as error:
            raise CommandError(str(error)) from None
