"""The brokers, each with its real server and one or two nodes (`scripts/bench --brokers`)."""
