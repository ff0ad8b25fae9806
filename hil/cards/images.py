"""Stock images as they are downloaded, xz, gz, zst or plain, and how they become a file that can be written on.

What an image is packed with is read from its first bytes, not from its name. Zeros become holes: an unpacked image of
Raspberry Pi OS takes on the disk what it holds, not what it spans.
"""

import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from flightsw.errors import ConfigError

BLOCK_BYTES: Final = 1 << 20
ZEROS: Final = bytes(BLOCK_BYTES)
IMAGE_BYTES_MAX: Final = 1 << 38
"""Largest image that we unpack [bytes]: 256 GiB, the largest card in use."""
MAGIC: Final = {b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"PK\x03\x04": "zip"}
"""First bytes. Sources: .xz format 1.2 §2.1.1.1, RFC 1952 §2.3.1, RFC 8878 §3.1.1, APPNOTE 6.3.10 §4.3.7."""


def unpack(image: Path, target: Path) -> int:
    """Write an image unpacked into a new file, durably; returns its size [bytes].

    Args:
        image: as it was downloaded.
        target: a name that is not there yet; removed again when something fails.

    Raises:
        ConfigError: the image cannot be read, is cut off or packed otherwise; the target is there or cannot be written.
    """
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # a prepared image holds keys
    except FileExistsError:
        raise ConfigError(f"{target}: is there already, expected a new file") from None
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file, _opened(image) as source:
            size_bytes = _copy(image, source, file, target)
        if size_bytes == 0:
            raise ConfigError(f"{image}: is empty, expected the image of a disk")
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return size_bytes


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits. Raises: ConfigError: it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _copy(image: Path, source: IO[bytes], file: IO[bytes], target: Path) -> int:
    size_bytes = 0
    while block := _block(image, source):
        size_bytes += len(block)
        if size_bytes > IMAGE_BYTES_MAX:
            raise ConfigError(f"{image}: more than {IMAGE_BYTES_MAX} bytes unpacked, expected the image of a card")
        try:
            if block == ZEROS[: len(block)]:
                file.seek(len(block), os.SEEK_CUR)
            else:
                file.write(block)
        except OSError as error:
            raise ConfigError(f"{target}: cannot be written: {error.strerror}") from None
    try:
        file.truncate(size_bytes)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from None
    return size_bytes


def _block(image: Path, source: IO[bytes]) -> bytes:
    try:
        return source.read(BLOCK_BYTES)
    except EOFError:
        raise ConfigError(f"{image}: ends before its packing does: cut off") from None
    except (lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigError(f"{image}: its packing is damaged: {error}") from None
    except OSError as error:
        raise ConfigError(f"{image}: cannot be read: {error.strerror}") from None


@contextmanager
def _opened(image: Path) -> Iterator[IO[bytes]]:
    """The unpacked bytes of an image, one after the other."""
    try:
        with image.open("rb") as file:
            first = file.read(6)
            packing = next((name for magic, name in MAGIC.items() if first.startswith(magic)), "")
            file.seek(0)
            if packing == "zip":
                raise ConfigError(f"{image}: a zip file, expected .img, .img.xz, .img.gz or .img.zst: unzip it first")
            if packing == "zst":
                with _zstd(image) as source:
                    yield source
            elif packing == "xz":
                with lzma.LZMAFile(file) as source:
                    yield cast(IO[bytes], source)
            elif packing == "gz":
                with gzip.GzipFile(fileobj=file) as source:
                    yield cast(IO[bytes], source)
            else:
                yield file
    except OSError as error:
        raise ConfigError(f"{image}: cannot be read: {error.strerror}") from None


@contextmanager
def _zstd(image: Path) -> Iterator[IO[bytes]]:
    """Python has no zstd before 3.14: the program does it."""
    program = shutil.which("zstd")
    if program is None:
        raise ConfigError(f"{image}: packed by zstd, expected the program zstd to be installed: apt-get install zstd")
    command = [program, "--decompress", "--stdout", "--quiet", "--", str(image)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        try:
            yield running.stdout
        except BaseException:
            running.kill()
            raise
        said = running.stderr.read().decode(errors="replace").strip().rpartition(":")[2].strip()
        if running.wait():
            raise ConfigError(f"{image}: its packing is damaged: {said}")
