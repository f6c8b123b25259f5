"""The authenticated account of a request."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Viewer:
    """An account, and the log-in session or API key that authenticates it.

    expires_at: when the access token or the API key expires, by time.time().
    """

    id: int
    is_admin: bool
    read_only: bool = field(default=False, compare=False)
    session_id: int | None = field(default=None, compare=False)
    key_id: int | None = field(default=None, compare=False)
    expires_at: float = field(default=math.inf, compare=False)
