"""The runtime: asyncio around the pure core. Links to clients, delivery, the reaper, the hub and its server."""
