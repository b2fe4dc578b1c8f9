"""One organization over HTTP: client, transport, throttle, query text, transaction ids, JSON."""
