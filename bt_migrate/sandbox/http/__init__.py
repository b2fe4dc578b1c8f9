"""The HTTP server of the sandbox: requests, keys, faults, the control endpoint, stored files."""
