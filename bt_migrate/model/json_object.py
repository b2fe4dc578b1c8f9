"""The type of a JSON object of the API: an object or a row, its fields by name."""

from __future__ import annotations

from typing import Any, Dict

JsonObject = Dict[str, Any]
