"""The live self-check: whether a server behaves as this program expects."""
