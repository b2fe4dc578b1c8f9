"""The bytes behind attachment references: read, copy, and digests of them."""
