"""A whole Avtomatika system as processes of this machine: Redis, two real orchestrators, three workers, an S3 server.

The same as ``deploy/compose.yaml`` without containers. ``make cluster`` runs it, and so do the end-to-end tests.
"""
