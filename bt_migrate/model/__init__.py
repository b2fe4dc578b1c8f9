"""What there is in Braintrust: the table of resources, references, findings, equality.

Pure: no HTTP, no files, no clock.
"""
