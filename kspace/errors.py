"""The error family: each says what was wrong, what was expected and what to do next.

The command line prints the message without a traceback and exits with :attr:`SpokewiseError.exit_code`.
"""


class SpokewiseError(Exception):
    """Base of every error that a person, not a programmer, is meant to read.

    Parameters
    ----------
    what
        What was wrong, in one sentence without a full stop.
    expected
        What would have been right.
    hint
        What to do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, expected: str = "", hint: str = "") -> None:
        parts = [what.rstrip(".")]
        if expected:
            parts.append(f"expected {expected.rstrip('.')}")
        message = "; ".join(parts) + "."
        if hint:
            message += f" {hint.rstrip('.')}."
        super().__init__(message)
        self.what, self.expected, self.hint = what, expected, hint


class UsageError(SpokewiseError):
    """An option, or a combination of options, that makes no sense."""

    exit_code = 2


class InputError(SpokewiseError):
    """Data that cannot be used: a file, an array, a header."""

    exit_code = 3


class ShapeError(InputError):
    """An array of the wrong shape."""

    def __init__(self, name: str, got: object, expected: str, *, hint: str = "") -> None:
        shape = tuple(getattr(got, "shape", ())) if hasattr(got, "shape") else got
        super().__init__(f"{name} has shape {shape}", expected=expected, hint=hint)
