"""Files of tasks: their workspaces, and the objects that come into them and go out."""
