"""The close codes of WebSockets (RFC 6455, section 7.4, and the service's own from 4000 on)."""

from __future__ import annotations

INVALID_TEXT = 1007
POLICY_VIOLATION = 1008  # too many messages, frames or subscriptions
TRY_AGAIN_LATER = 1013  # the database is unavailable, or the process has no slot left
UNAUTHORIZED = 4401
SESSION_ENDED = 4403  # or the account's role has changed
NOTHING_READ = 4408  # a slow subscriber: `api.websocket_protocol` sends it when `api.connection` sees no byte taken
