"""Check keys, rights and what is there, tell what would not move and how long it takes. Writes nothing."""

NAME = "validate"


def run(work):
    pass


def main(argv=None):
    return 0
