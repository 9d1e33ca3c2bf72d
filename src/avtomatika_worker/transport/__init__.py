"""The wire itself: HTTP, the commands' WebSocket, TLS. Foreign exceptions end here as `TransportError`."""
