"""The service with plain sending in place of frames made once, to be measured beside it."""

from __future__ import annotations

import sys

from service.api.streaming import websocket
from service.cli import main

setattr(websocket, "client_connection_of", lambda _scope: None)  # noqa: B010 - which is none of what `websocket` exports

if __name__ == "__main__":
    sys.exit(main())
