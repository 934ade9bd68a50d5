"""Errors that a user can cause. The command line prints their message on one line and exits with code 2."""

import difflib
from collections.abc import Iterable


class LetheError(Exception):
    """Base of every error that is the user's to fix; its text names the argument, the rule and the value."""


class ConfigError(LetheError, ValueError):
    """A value, key or combination in the configuration is not possible."""


class DataError(LetheError):
    """A data file is missing, corrupt or cannot be fetched."""


class AccessError(LetheError):
    """A strategy touched data that it must not see (a later task, a past task, test data)."""


class TrainingError(LetheError):
    """Training itself failed (a loss that is not finite); what was measured before is kept."""


def expect(condition: bool, name: str, rule: str, value: object) -> None:
    """Raise `ConfigError` ``Expected `name` rule, got value`` unless `condition` holds.

    >>> expect(1 > 0, "lr", "> 0", 1)
    >>> expect(-1 > 0, "lr", "> 0", -1)
    Traceback (most recent call last):
    cl.errors.ConfigError: Expected `lr` > 0, got -1
    """
    if not condition:
        raise ConfigError(f"Expected `{name}` {rule}, got {value!r}")


def out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that memory, of the machine or of a device, did not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(t in str(error) for t in ("allocate memory", "bad_alloc"))


def told(error: BaseException) -> str:
    """Return what an error says to a user, with its type where it is a defect.

    >>> told(ConfigError("Expected `lr` > 0, got -1")), told(ValueError("no"))
    ('Expected `lr` > 0, got -1', 'ValueError: no')
    """
    return str(error) if isinstance(error, LetheError) else f"{type(error).__name__}: {error}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or None where none is close; capitals do not count.

    The only name that begins with `name` is the closest.

    >>> closest("samples", ["test_samples", "samples_per_task"])
    'samples_per_task'
    """
    folded = {k.casefold(): k for k in known}
    begun = [k for k in folded if name and k.startswith(name.casefold())]
    if len(begun) == 1:
        return folded[begun[0]]
    return next((folded[c] for c in difflib.get_close_matches(name.casefold(), folded, 1)), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean x?)`` for the known name closest to `name`, or nothing where none is close.

    >>> nearest("tran", ["train", "list"])
    ' (did you mean train?)'
    >>> nearest("zzz", ["train", "list"])
    ''
    """
    close = closest(name, known)
    return f" (did you mean {close}?)" if close else ""
