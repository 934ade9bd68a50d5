"""The command ``lethe``: finds subcommands by walking `cl.cli.commands` and runs one."""

import ast
import atexit
import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn, TextIO

from cl import __version__
from cl.errors import ConfigError, LetheError, nearest
from cl.files import UNWRITABLE
from cl.signals import Interrupted

COMMANDS = Path(__file__).parent / "commands"
USER_ERROR, INTERRUPTED = 2, 128 + signal.SIGINT


def commands() -> dict[str, str]:
    """Return name -> help line of every subcommand, read from the source without importing it."""
    files = sorted(COMMANDS.glob("[!_]*.py"))
    return {file.stem.replace("_", "-"): summary(file) for file in files}


def summary(file: Path) -> str:
    """Return the first docstring line of a Python file."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")[0]


def usage() -> str:
    """Return the text of ``lethe --help``."""
    found = commands()
    width = max(map(len, found))
    lines = [f"  {name:<{width}}  {text}" for name, text in found.items()]
    return "\n".join(
        [
            "usage: lethe COMMAND [ARGUMENTS]",
            "",
            "How a network forgets, why, and what stops it.",
            "",
            *lines,
            "",
            "  lethe COMMAND --help    what a command takes",
            "  lethe --version         the version",
        ]
    )


def dispatch(argv: list[str]) -> int:
    """Run one command line and return its exit code.

    Raises:
        ConfigError: the subcommand is unknown.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"lethe {__version__}")
        return 0
    known = list(commands())
    if argv[0] not in known:
        raise ConfigError(f"Expected a command in {known}, got {argv[0]!r}{nearest(argv[0], known)}")
    module = importlib.import_module(f"cl.cli.commands.{argv[0].replace('-', '_')}")
    return int(module.main(argv[1:]))


def main(argv: list[str] | None = None) -> int:
    """Run `argv` (default: the process's arguments); errors that a user can fix become one line and exit code 2."""
    # A class of the user's own is named by `_target_` from where the command is called. It goes last, so that it can
    # not hide an installed module.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        code = dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except LetheError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        _silence(sys.stdout)
        return 0
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"error: Expected files that can be read and written, got {error}", file=sys.stderr)
        return USER_ERROR
    except Interrupted as stop:
        print(f"interrupted: {stop}; the same command with resume=auto goes on", file=sys.stderr)
        return 128 + stop.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return code


def entry() -> NoReturn:
    """Run the process's arguments and end the process with the exit code.

    Where nothing is left that needs it, without Python's own end, which takes torch apart piece by piece: an eighth of
    a second, for memory that the system takes back anyway. What was registered for the end is done as ever.
    """
    code = main()
    watched = sys.gettrace() or sys.getprofile() or sys.flags.inspect or "coverage" in sys.modules
    if watched or any(not t.daemon for t in threading.enumerate() if t is not threading.main_thread()):
        sys.exit(code)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # Python tells it, and changes the exit code
        sys.exit(code)
    os._exit(code)


def _silence(stream: TextIO) -> None:
    """Send what is still buffered nowhere, so that the interpreter does not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    entry()
