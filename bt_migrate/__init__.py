"""Moves a Braintrust organization into another one: completely, provably and fast."""

__version__ = "0.1.0"
