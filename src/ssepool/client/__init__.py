"""A client of a hub, for threads and for asyncio: publish, subscribe, statistics. It needs the extra `client`.

with Client("http://127.0.0.1:8000") as client:
    client.publish("chat", "hello")
    for message in client.subscribe("chat", last_event_id="earliest"):
        print(message.id, message.data)
"""

from ssepool.client.calls import batches
from ssepool.client.clients import AsyncClient, Client
from ssepool.client.errors import ClientError, Refused, Unreachable
from ssepool.client.reader import Reader
from ssepool.core.decoder import Message
from ssepool.core.event import Event

__all__ = ["AsyncClient", "Client", "ClientError", "Event", "Message", "Reader", "Refused", "Unreachable", "batches"]
