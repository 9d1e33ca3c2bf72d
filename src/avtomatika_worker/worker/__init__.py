"""`Worker`, how its services are put together, and the process it runs in."""

from avtomatika_worker.worker.worker import Worker

__all__ = ["Worker"]
