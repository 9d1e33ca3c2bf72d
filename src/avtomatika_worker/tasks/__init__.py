"""From a poll to a finished task. On the main loop."""
