"""RXON, sans-IO: values in, requests out; replies in, values out.

Nothing here uses sockets, event loops, threads or HTTP libraries. ``messages`` has the values, ``canonical`` and
``signing`` make them verifiable, ``dialects`` has the differences between orchestrator releases, and ``codec`` converts
in both directions.
"""
