"""The link to one orchestrator: registration, heartbeats, commands, tokens. Runs on the link thread."""
