"""Everything that knows HTTP or WebSocket, from the socket to the OpenAPI document."""
