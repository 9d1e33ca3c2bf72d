"""Worker SDK for the Avtomatika orchestrator."""
