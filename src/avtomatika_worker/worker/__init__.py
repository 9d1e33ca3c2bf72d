"""`Worker`, the assembly of its services, and the process it runs in."""

from avtomatika_worker.worker.worker import Worker

__all__ = ["Worker"]
