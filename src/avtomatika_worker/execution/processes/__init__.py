"""Skills in processes of their own: a pool of them (`pool`), one of them (`process`), and what runs in it (`child`).

A process is a fresh interpreter that runs one task at a time. It is joined to the worker by one socket pair of its own,
so that nothing that happens to it, a kill at any moment included, touches another.
"""
