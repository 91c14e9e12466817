"""Errors that are for the user: what was wrong, where, and what to do about it."""


class BivrecError(Exception):
    """Base of every error that the user can put right; commands print it without a traceback."""


class DataError(BivrecError, ValueError):
    """The user's data is not what was expected. The message names file, row and column."""


class ConfigError(BivrecError, ValueError):
    """A configuration is not valid. The message names the key."""
