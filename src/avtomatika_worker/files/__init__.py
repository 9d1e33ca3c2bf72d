"""Tasks' files: their workspaces, and the objects downloaded into and uploaded from them."""
