"""Compare."""

NAME = "verify"


def run(work):
    pass


def main(argv=None):
    return 0
