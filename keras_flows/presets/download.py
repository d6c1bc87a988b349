"""Archives of presets by https, kept under the checksum of the archive.

The checksum names what is meant, so the cache never grows stale and no server
has to be trusted. `keras.utils.get_file` has neither resuming nor a lock and
leaves a file of the wrong checksum behind; the few lines here do.
"""

import contextlib
import hashlib
import http.client
import os
import pathlib
import re
import time
import urllib.error
import urllib.parse
import urllib.request

import keras

from keras_flows.presets.archives import unpack
from keras_flows.presets.limits import beyond
from keras_flows.presets.limits import limits

_CHUNK = 1 << 20
_TIMEOUT = 30.0
_LOCAL = ("localhost", "127.0.0.1", "::1")
_CHECKSUM = re.compile(r"(?:sha256=)?([0-9a-f]{64})", re.IGNORECASE)


def cache_folder():
    """Where archives are unpacked: $KERAS_HOME (~/.keras)/presets/..."""
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return pathlib.Path(home).expanduser() / "presets" / "keras_flows"


def fetch(handle):
    """The folder of an https handle, downloaded once.

    Args:
        handle: "https://host/preset.tar.gz#sha256=<64 hex digits>", a tar or
            zip; http:// for localhost only.

    Raises:
        ValueError: if the handle has no checksum, the archive another one, or
            it holds no preset.
        ConnectionError: if the download fails; the next call resumes it.
        OSError: if the cache cannot be written.
    """
    url, checksum = parsed(handle)
    cache = cache_folder()
    folder = cache / checksum
    # Renamed into place when it was complete.
    if folder.is_dir():
        return folder
    try:
        (cache / ".locks").mkdir(parents=True, exist_ok=True)
        lock = open(cache / ".locks" / checksum, "a")
    except OSError as error:
        raise OSError(
            f"The cache {cache} cannot be written ({error}). Set KERAS_HOME to "
            "a folder that can."
        ) from error
    with lock, locked(lock):
        if folder.is_dir():
            return folder
        part = cache / f"{checksum}.part"
        resume(url, part)
        try:
            check(part, checksum, url)
            unpack(part, folder)
        except ValueError as error:
            raise ValueError(f"No preset from {url}: {error}") from error
        finally:
            part.unlink(missing_ok=True)
    return folder


def parsed(handle):
    url, _, fragment = handle.partition("#")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOCAL:
        raise ValueError(
            f"{handle!r} is not encrypted: http:// is for localhost only. Use "
            "https://."
        )
    found = _CHECKSUM.fullmatch(fragment)
    if found is None:
        raise ValueError(
            f"No preset at {handle!r} without the checksum of its archive: "
            "append #sha256=<64 hex digits>, as `sha256sum` prints them."
        )
    return url, found[1].lower()


@contextlib.contextmanager
def locked(file):
    """Hold the file's lock, which the system frees when a process dies."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        # Tries for ten seconds, then raises an OSError.
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        try:
            yield
        finally:
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def resume(url, part):
    """Download to `part`, from where an earlier call was interrupted.

    Raises:
        ConnectionError: if it fails, or takes longer than `limits()` allow.
        ValueError: if there is more than those allow; nothing is kept.
    """
    done = part.stat().st_size if part.exists() else 0
    most, until = limits().download_bytes, limits().download_seconds
    until += time.monotonic()
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            resumed = response.status == 206
            if not resumed:
                done = 0
            length = response.headers.get("Content-Length")
            total = None if length is None else done + int(length)
            bar = keras.utils.Progbar(total, unit_name="byte")
            with open(part, "ab" if resumed else "wb") as file:
                # What there is, be it one byte: a whole chunk may take hours.
                while chunk := response.read1(_CHUNK):
                    done += len(chunk)
                    if max(done, total or 0) > most:
                        break
                    if time.monotonic() > until:
                        raise TimeoutError(
                            f"too slow. {beyond('download_seconds')}"
                        )
                    file.write(chunk)
                    bar.update(done)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # Nothing is left to send: the checksum tells whether that is so.
            return
        raise ConnectionError(
            f"{url} answered {error.code} {error.reason}."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"Downloading {url} failed after {done} bytes ({reason}); call "
            "again to resume. Without a network only cached presets load."
        ) from error
    if max(done, total or 0) > most:
        part.unlink(missing_ok=True)
        raise ValueError(
            f"{url} sends {max(done, total or 0):,} bytes or more. "
            f"{beyond('download_bytes')}"
        )
    if total is not None and done < total:
        raise ConnectionError(
            f"{url} was cut off after {done} of {total} bytes; call again to "
            "resume."
        )


def check(part, checksum, url):
    digest = hashlib.sha256()
    with open(part, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != checksum:
        raise ValueError(
            f"its sha256 is {digest.hexdigest()}, not {checksum}. It was "
            "deleted; if the archive was changed, ask for its new checksum."
        )
