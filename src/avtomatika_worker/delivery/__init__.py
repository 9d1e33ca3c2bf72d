"""From a finished task to its orchestrator: nothing is lost on the way."""
