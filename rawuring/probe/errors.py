"""The one way in which a command line, or a file that it names, is refused. Imports nothing."""


class UsageError(Exception):
    """What cannot be done as it was asked for: one line, and exit status 2."""
