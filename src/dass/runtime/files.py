"""Files that are whole or absent: written under a temporary name, then renamed."""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dass.errors import DataError
from dass.runtime.progress import log


def _beside(path: Path) -> Path:
    """A name in the same folder, hence on the same file system, that no other process uses.

    Nodes of a cluster share folders and not process numbers. What a killed process of this machine
    left under such a name is removed.
    """
    ours = f".{path.name}.{socket.gethostname()}-"
    for left in path.parent.iterdir():
        number = left.name.removeprefix(ours).removesuffix(".part")
        if left.name == f"{ours}{number}.part" and number.isdecimal() and not _lives(int(number)):
            _remove(left)
    return path.with_name(f"{ours}{os.getpid()}.part")


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it on success, remove it on failure.

    Raises:
        DataError: there is a folder of that name.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: a folder where a file is to be written; remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    mode = _usual_mode(part)
    try:
        yield part
        _finish(part, mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing_directory(path: str | Path) -> Iterator[Path]:
    """As :func:`writing`, for a folder: an earlier folder of that name is replaced as a whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    mode = _usual_mode(part)
    earlier = _beside(path.with_name(f"{path.name}.earlier"))
    part.mkdir()
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                _finish(file, mode)
        if path.exists():
            path.replace(earlier)  # at once: a removal takes long, and may be cut off half-way
        part.replace(path)
    finally:
        if earlier.exists() and not path.exists():
            earlier.replace(path)
        _remove(part)
        _remove(earlier)


def _usual_mode(probe: Path) -> int:
    """The mode that a new file gets there: that of one, since asking for the umask sets it."""
    probe.touch()
    try:
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()


def _finish(file: Path, mode: int) -> None:
    """Give a written file the usual mode, and have it on disk before it gets its name.

    safetensors makes its files for the user alone, and others read results. A full disk behind a
    network shows only now.
    """
    file.chmod(mode)
    with file.open("rb") as written:
        os.fsync(written.fileno())


@contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Wait until no other job works in a folder: one that its Snakemake has not outlived, for one.

    The kernel ends the lock with the process. A file system that locks no folders (NFS) has none.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting: another job works in %s", folder)
            fcntl.flock(opened, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
    finally:
        os.close(opened)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with writing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, keys in the order given, atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing, cannot be read, or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run again, or check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); delete it and run again") from None


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(content: Any) -> str:
    """JSON with its hash, so that a flipped bit in it is noticed."""
    text = json.dumps(content)
    return json.dumps({"content": text, "sha256": hashlib.sha256(text.encode()).hexdigest()})


def unseal(text: str) -> Any:
    """What :func:`seal` has sealed.

    Raises:
        ValueError: it is not what was sealed.
    """
    try:
        sealed = json.loads(text)
        content, digest = sealed["content"], sealed["sha256"]
        if hashlib.sha256(content.encode()).hexdigest() == digest:
            return json.loads(content)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        pass
    raise ValueError("its metadata is not what was saved")
