"""Files appear whole or not at all: written beside their place and renamed into it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kspace.errors import InputError

MAX_COMPRESSION = 1100
"""No file grows by more than this when it is inflated: deflate cannot do better than 1032 to 1."""


def existing_file(path: str | os.PathLike[str], kind: str) -> Path:
    """Return ``path`` if it is a file that can be read.

    Parameters
    ----------
    path
        The file.
    kind
        What it should be, for the message: ``"a NIfTI file"``.

    Raises
    ------
    InputError
        When there is nothing, a folder, or a file without permission to read.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder", expected=kind)
    if not path.is_file():
        raise InputError(f"{path} does not exist", expected=kind, hint="Check the path")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read", expected=kind, hint="Check the permissions of the file")
    return path


def temporary_beside(path: str | os.PathLike[str]) -> Path:
    """Return an unused hidden name in the folder of ``path``, with all of its suffixes (``.nii.gz``).

    Raises
    ------
    InputError
        When the folder does not exist or cannot be written, or ``path`` is itself a folder.
    """
    path = Path(path)
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist", expected=f"a folder for {path.name}", hint="Create it")
    if path.is_dir():
        raise InputError(f"{path} is a folder", expected="the name of a file to write")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"the folder {folder} cannot be written",
            expected=f"a folder for {path.name}",
            hint="Check its permissions or write elsewhere",
        )
    return folder / f".{secrets.token_hex(4)}.{path.name}"


@contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` on success, delete it on failure.

    An existing file keeps its old content until the new one is complete.

    Parameters
    ----------
    path
        The final name. The temporary name ends with it, so that writers which look at suffixes see the same.

    Raises
    ------
    InputError
        When the folder does not exist or cannot be written, or the disk refuses (no space, for one).
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise InputError(f"{path} could not be written ({one_line(reason)})", expected="a writable place") from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8; raises as :func:`written_beside`."""
    with written_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def atomic_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON; raises as :func:`written_beside`, and ValueError for NaN, which is not JSON."""
    atomic_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def one_line(text: object, limit: int = 120) -> str:
    """Return text from outside (a library's message, a header's string) as one printable line of bounded length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 8 * limit]).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
