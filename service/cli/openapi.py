"""`python -m service openapi`: print the OpenAPI document."""

from __future__ import annotations

import argparse

import orjson

from service import app
from service.core.settings import Settings


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the OpenAPI document as JSON."""
    document = app.create_app(settings).openapi()
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    return 0
