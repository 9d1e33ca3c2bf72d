"""Runs skills in processes of their own: the pool (`process_pool`), one process (`process`), and its program (`child`).

A skill process is a fresh interpreter that runs one task, or one batch, at a time. It is connected to the worker by its
own socket pair, so nothing that happens to it, not even a kill, affects another process.
"""
