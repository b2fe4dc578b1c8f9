"""Settings and command-line options, each declared once in `settings.Settings`."""
