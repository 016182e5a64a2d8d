"""How bytes reach clients: the log, the feeds, their delivery, and a link for each client."""
