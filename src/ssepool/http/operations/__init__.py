"""Operations: what can be asked of a hub over HTTP, by path and method, as OpenAPI 3.2 writes it."""

from __future__ import annotations

from ssepool.http.operations.administration import ADMINISTRATION
from ssepool.http.operations.clients import CLIENTS
from ssepool.http.operations.pages import PAGES
from ssepool.http.operations.words import MAX_QUERY
from ssepool.http.schemas import Schema

__all__ = ["MAX_QUERY", "PATHS"]

PATHS: Schema = {**CLIENTS, **ADMINISTRATION, **PAGES}
"""The operations, by path and method."""
