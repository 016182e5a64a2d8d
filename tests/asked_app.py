"""A hub's application for the world, with the settings of the environment: for servers that are told a module."""

from __future__ import annotations

import os

from ssepool import Hub
from ssepool.config import load

app = Hub(load(env=os.environ)[0]).app
