"""Who asks: an account, and the log-in session or API key that it came with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Viewer:
    """Who asks, and by what: an account, with one of its sessions or one of its API keys.

    expires_at: until when that is good, by time.time().
    """

    id: int
    is_admin: bool
    read_only: bool = field(default=False, compare=False)
    session_id: int | None = field(default=None, compare=False)
    key_id: int | None = field(default=None, compare=False)
    expires_at: float = field(default=math.inf, compare=False)
