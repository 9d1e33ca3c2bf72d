"""RXON, sans-IO: values in, requests out; replies in, values out.

Nothing here knows of sockets, event loops, threads or HTTP libraries. ``messages`` are the values, ``canonical`` and
``signing`` what makes them verifiable, ``dialects`` what differs between orchestrator releases, ``codec`` the two
directions.
"""
