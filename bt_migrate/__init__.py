"""Moves a Braintrust organization into another one: completely, provably and fast."""

from __future__ import annotations

__version__ = "0.1.0"
