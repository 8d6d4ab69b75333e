"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input or configuration, told in one sentence: where, what was found, what was expected, what to do."""
