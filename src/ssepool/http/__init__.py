"""The hub over HTTP: one file a subject, each with `routes(hub)`, put together by `app.py`."""
