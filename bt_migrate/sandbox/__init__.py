"""A local Braintrust: a real HTTP server on loopback, for the demo, rehearsals and tests.

It imports nothing from the rest of bt_migrate, so that it can judge it.
"""
