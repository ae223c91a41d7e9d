"""Errors for the person who runs the pipeline: one line each, with the place and the remedy."""


class DassError(Exception):
    """A problem that the person who runs DaSS can mend; the message is one line."""


class ConfigError(DassError):
    """The configuration asks for something unknown or impossible."""


class PatternError(DassError):
    """A sparsity pattern is malformed or does not fit a matrix."""


class ModelError(DassError):
    """A model folder cannot be used: a file is missing, or the architecture is not supported."""


class DataError(DassError):
    """A data set or a result file is missing, too small or malformed."""


class NumericError(DassError):
    """A computation produced values that nothing after it may trust."""


class DeviceError(DassError):
    """The machine's GPU, or what comes with its driver, cannot do what is asked."""
