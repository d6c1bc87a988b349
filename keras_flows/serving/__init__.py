"""An HTTP service of an export or a preset, and a page without one.

`keras-flows serve` runs the service.

FastAPI is imported with `create_app`, not before.
"""

from __future__ import annotations

import typing

from keras_flows.serving.page import write_page
from keras_flows.serving.sources import Source
from keras_flows.serving.sources import from_export
from keras_flows.serving.sources import from_preset

if typing.TYPE_CHECKING:
    from typing import Any


def create_app(source: Source, **options: Any) -> Any:
    """The application that serves a source: see `serving.app.create_app`.

    Raises:
        ImportError: without FastAPI.
    """
    try:
        from keras_flows.serving import app
    except ImportError as error:
        raise ImportError(
            "The service needs FastAPI: pip install 'keras_flows[serve]'"
        ) from error
    return app.create_app(source, **options)


__all__ = [
    "create_app",
    "from_export",
    "from_preset",
    "Source",
    "write_page",
]
