"""The service with plain sending in place of frames made once, to be measured beside it: `python -m tests.load.plain`."""

from __future__ import annotations

import sys

from service.__main__ import main
from service.web import live

live.wire_of = lambda _scope: None  # type: ignore[assignment]

if __name__ == "__main__":
    sys.exit(main())
