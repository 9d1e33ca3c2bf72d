"""What watches the worker: health, the watchdog, the load of the machine. On the link thread."""
