"""Refusals of a method: data or a configuration that it is not made for."""


class CannotFit(Exception):
    """The data are not what the method is made for; the job is skipped, with this as the reason."""


class ConfigError(ValueError):
    """A configuration that is wrong whatever the data are; the message names the key and the allowed values."""
