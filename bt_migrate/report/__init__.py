"""Report, summary and plan, for the screen, as JSON and as HTML: made from the state alone."""
