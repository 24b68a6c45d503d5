"""The errors that a user can mend. Programs catch `KseqError`; the command line prints its message as one line."""


class KseqError(Exception):
    """A job that cannot go on; the message says what happened and what to do. The command line exits with 1."""

    exit_code = 1


class InputError(KseqError, ValueError):
    """A bad argument, file or flag: names it, the value got, what is allowed and what to do. Exit code 2."""

    exit_code = 2


def shorten(value: object, length: int = 40) -> str:
    """`repr(value)` cut to `length` characters for a one-line message; says how long a cut string was."""
    if isinstance(value, str) and len(value) > length:
        return f"{value[: length // 2]!r}… ({len(value):,} characters)"
    return repr(value)
