"""How every command ends: one exit code for each kind of end, and one line that says what is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from .errors import CheckpointError, ConfigError, DataError, DeviceError
from .gpus import shortage

DONE, FAILED, WRONG_COMMAND_LINE, DIVERGED, CANNOT_WRITE, NO_MEMORY, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

# What a person can cause by what they type and which files they have; anything else that is raised is a fault of ours.
OF_THE_USER = (ConfigError, DataError, DeviceError, CheckpointError)


def ended(
    program: str,
    work: Callable[[], int],
    *,
    codes: Mapping[type[Exception], int] | None = None,
    words: Callable[[BaseException], str | None] = lambda error: None,
) -> int:
    """Do the work of a command; returns its exit code, or that of the way in which it failed, which is said on stderr.

    program  what was typed, for the line
    work     () -> exit code
    codes    of errors that this command knows besides
    words    (error) -> what is to be said of it, where that is not what the error itself says; None leaves it as it is

    An error that is none of those goes on, with its traceback.
    """
    codes = {} if codes is None else codes
    expected: tuple[type[Exception], ...] = (*OF_THE_USER, *codes, OSError, MemoryError)
    try:
        code = work()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read this has gone; Python would complain once more when it closes the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CANNOT_WRITE
    except KeyboardInterrupt as error:
        return complain(program, said, INTERRUPTED) if (said := words(error)) else INTERRUPTED
    except expected as error:
        text = words(error) or (shortage(error) if isinstance(error, MemoryError) else one_line(error))
        return complain(program, text, code_of(error, codes))


def code_of(error: Exception, codes: Mapping[type[Exception], int]) -> int:
    """The exit code that an error leads to."""
    found = next((code for kind, code in codes.items() if isinstance(error, kind)), None)
    if found is not None:
        return found
    if isinstance(error, MemoryError):
        return NO_MEMORY
    return WRONG_COMMAND_LINE if isinstance(error, OF_THE_USER) else CANNOT_WRITE


def complain(program: str, text: str, code: int) -> int:
    """Say on stderr what is wrong; returns the exit code."""
    print(f"{program}: {text}", file=sys.stderr)
    return code


def one_line(error: object) -> str:
    """What an error says, in a line."""
    return " ".join(str(error).split())


def show(line: object) -> None:
    """Print at once, whatever the terminal can spell."""
    encoding = sys.stdout.encoding or "utf-8"
    print(str(line).encode(encoding, "backslashreplace").decode(encoding), flush=True)
