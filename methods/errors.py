"""Refusals of a method: data, a stack of fits, or a configuration that it is not made for."""


class CannotFit(Exception):
    """The data are not what the method is made for; the job is skipped, with this as the reason."""


class CannotStack(Exception):
    """These fits cannot be stacked: each must be made by itself."""


class ConfigError(ValueError):
    """A configuration that is wrong whatever the data are; the message names the key and the allowed values."""
