"""The versions under a model's base path: which there are, which is served, and what became of it.

A version is a folder whose name is an integer, zero-padded or not. The newest one that loads is
served. It replaces the older one only after it loaded; requests under way keep theirs.
"""

import dataclasses
import enum
import logging
import re
import threading
from collections.abc import Mapping
from pathlib import Path

from serving.development_server.servable import SAVED_MODEL_FILE, LoadError, Servable

_LOGGER = logging.getLogger(__name__)

_VERSION_NAME = re.compile(r"[0-9]{1,19}")
_LARGEST_VERSION = 2**63 - 1

Fingerprint = frozenset[tuple[str, int, int]]
"""Relative path, size in bytes and modification time in nanoseconds of every file of a folder."""


class State(enum.Enum):
    """Where a version is in its life, by the numbers of `ModelVersionStatus.State`."""

    LOADING = 20
    AVAILABLE = 30
    END = 50


@dataclasses.dataclass(frozen=True)
class VersionState:
    """The state of a version, and why it could not be loaded (empty unless that is so)."""

    state: State
    error: str = ""


class VersionManager:
    """Keeps the newest version under a base path loaded.

    `refresh` belongs to one thread at a time; the other methods can be called from any.

    Args:
        base_path: The folder that holds the version folders.
    """

    def __init__(self, base_path: Path):
        self._base_path = base_path
        self._lock = threading.Lock()
        self._current: Servable | None = None
        self._states: dict[int, VersionState] = {}
        self._seen: dict[int, Fingerprint] = {}
        self._failed: dict[int, Fingerprint] = {}
        self._problems: dict[int, str] = {}
        self._logged: set[tuple[int, str]] = set()

    @property
    def current(self) -> Servable | None:
        """The version that is served, or None before the first one is loaded."""
        with self._lock:
            return self._current

    @property
    def states(self) -> Mapping[int, VersionState]:
        """The state of every version that was tried, by version number."""
        with self._lock:
            return dict(self._states)

    def problems(self) -> Mapping[int, str]:
        """Returns why versions were skipped, by version number."""
        return dict(self._problems)

    def refresh(self, wait_until_unchanged: bool = True) -> None:
        """Looks at the base path once and loads the newest version if it is not the current one.

        A version that is incomplete or fails to load is skipped, with one line in the log, and
        tried again when its files have changed. If the current version's folder is gone, the
        newest of those that are left takes its place; if none is left, the current one stays.

        Args:
            wait_until_unchanged: Leave a folder alone whose files were not the same at the
                previous look: it is still being copied.

        Raises:
            OSError: If the base path cannot be read.
        """
        current = self.current
        for version, directory in self._version_directories():
            if current is not None and version == current.version:
                return
            if self._try_version(version, directory, wait_until_unchanged):
                return

    def _version_directories(self) -> list[tuple[int, Path]]:
        """Returns number and folder of every version, newest first."""
        directories: dict[int, Path] = {}
        for child in sorted(self._base_path.iterdir()):
            if not _VERSION_NAME.fullmatch(child.name) or not child.is_dir():
                continue
            version = int(child.name)
            if version > _LARGEST_VERSION:
                continue
            if version in directories:
                self._report(
                    version,
                    f"is there twice, as {directories[version].name} and {child.name}; "
                    f"the latter is used",
                )
            directories[version] = child
        return sorted(directories.items(), reverse=True)

    def _try_version(self, version: int, directory: Path, wait_until_unchanged: bool) -> bool:
        if not (directory / SAVED_MODEL_FILE).is_file():
            self._report(version, f"is skipped: no {SAVED_MODEL_FILE} in {directory} (yet)")
            return False
        try:
            fingerprint = _fingerprint(directory)
        except FileNotFoundError:  # Files come and go: the folder is being written or deleted.
            return False
        unchanged = self._seen.get(version) == fingerprint
        self._seen[version] = fingerprint
        if wait_until_unchanged and not unchanged:
            return False
        if self._failed.get(version) == fingerprint:
            return False
        return self._load(version, directory, fingerprint)

    def _load(self, version: int, directory: Path, fingerprint: Fingerprint) -> bool:
        self._set_state(version, VersionState(State.LOADING))
        try:
            servable = Servable(directory, version)
        except LoadError as error:
            self._failed[version] = fingerprint
            self._set_state(version, VersionState(State.END, str(error)))
            self._report(version, f"is skipped: {directory} cannot be loaded: {error}")
            return False
        with self._lock:
            previous, self._current = self._current, servable
            self._states[version] = VersionState(State.AVAILABLE)
            if previous is not None:
                self._states[previous.version] = VersionState(State.END)
        self._failed.pop(version, None)
        self._problems.pop(version, None)
        _LOGGER.info("version %d is being served, from %s", version, directory)
        return True

    def _set_state(self, version: int, state: VersionState) -> None:
        with self._lock:
            self._states[version] = state

    def _report(self, version: int, text: str) -> None:
        """Logs a problem once, not at every look."""
        self._problems[version] = text
        if (version, text) not in self._logged:
            self._logged.add((version, text))
            _LOGGER.warning("version %d %s", version, text)


def _fingerprint(directory: Path) -> Fingerprint:
    files = set()
    for path in directory.rglob("*"):
        status = path.stat()
        files.add((str(path.relative_to(directory)), status.st_size, status.st_mtime_ns))
    return frozenset(files)
