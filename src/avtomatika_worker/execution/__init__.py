"""From a task to its outcome. Whatever a skill does, nothing but an outcome leaves here."""
