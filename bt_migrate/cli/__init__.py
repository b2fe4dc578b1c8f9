"""What surrounds every program: errors, signals, bin/control, status, log lines, what the screen
shows.

It does not know what a phase moves.
"""
