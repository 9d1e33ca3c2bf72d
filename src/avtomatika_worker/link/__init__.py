"""One orchestrator as the worker sees it: registration, heartbeats, commands, tokens. On the link thread."""
