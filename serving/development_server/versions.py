"""The versions under a model's base path: which there are, which are served, what became of them.

A version is a folder whose name is an integer, zero-padded or not. A policy says which ones to
serve. A version leaves only after those that take its place have loaded; requests under way keep
theirs.
"""

import dataclasses
import enum
import logging
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from tensorflow_serving.config import file_system_storage_path_source_pb2

from serving.development_server.servable import SAVED_MODEL_FILE, LoadError, Servable, one_line

_LOGGER = logging.getLogger(__name__)

_VERSION_NAME = re.compile(r"[0-9]{1,19}")
_LARGEST_VERSION = 2**63 - 1

Policy: TypeAlias = (
    file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy
)

Fingerprint = frozenset[tuple[str, int, int, int]]
"""Relative path, mode, size in bytes and modification time in nanoseconds of every file."""


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
    """Keeps the versions under a base path that a policy asks for loaded.

    `refresh` belongs to one thread at a time; the other methods can be called from any.

    Args:
        base_path: The folder that holds the version folders.
        policy: Which versions to serve: the newest N that load (N = 1 unless it says more), all,
            or those it names. Can be exchanged between two refreshes.
        load: Makes a servable of a version's folder and number, or raises `LoadError`.
    """

    def __init__(
        self,
        base_path: Path,
        policy: Policy | None = None,
        load: Callable[[Path, int], Servable] = Servable,
    ):
        self.base_path = base_path
        self.policy = Policy() if policy is None else policy
        self._load_servable = load
        self._lock = threading.Lock()
        self._loaded: dict[int, Servable] = {}
        self._states: dict[int, VersionState] = {}
        self._seen: dict[int, Fingerprint] = {}
        self._failed: dict[int, Fingerprint] = {}
        self._problems: dict[int, str] = {}
        self._logged: set[tuple[int, str]] = set()

    @property
    def current(self) -> Servable | None:
        """The newest version that is loaded, or None before the first one is."""
        with self._lock:
            return self._loaded[max(self._loaded)] if self._loaded else None

    def loaded(self, version: int) -> Servable | None:
        """Returns a version, or None if it is not loaded."""
        with self._lock:
            return self._loaded.get(version)

    @property
    def states(self) -> Mapping[int, VersionState]:
        """The state of every version that was tried, by version number."""
        with self._lock:
            return dict(self._states)

    def problems(self) -> Mapping[int, str]:
        """Returns why versions were skipped, by version number."""
        return dict(self._problems)

    def refresh(self, wait_until_unchanged: bool = True) -> None:
        """Looks at the base path once; loads what the policy asks for and unloads the rest.

        Of folders that are incomplete or damaged the next older ones take the places, where the
        policy leaves a choice. If nothing that it asks for is left, what is loaded stays.

        Args:
            wait_until_unchanged: Leave a folder alone whose files were not the same at the
                previous look: it is still being copied.

        Raises:
            OSError: If the base path cannot be read.
        """
        directories = self._version_directories()
        wanted = self._wanted(directories)
        at_most = self._at_most()
        chosen: list[int] = []
        for version in wanted:
            if at_most is not None and len(chosen) == at_most:
                break
            if version in self._loaded or self._try_version(
                version, directories[version], wait_until_unchanged
            ):
                chosen.append(version)
        if chosen:
            self._unload_all_but(chosen)

    def unload(self) -> None:
        """Lets go of every version; requests under way keep theirs."""
        self._unload_all_but([])

    def _at_most(self) -> int | None:
        if self.policy.WhichOneof("policy_choice") in ("all", "specific"):
            return None
        return max(1, self.policy.latest.num_versions)

    def _wanted(self, directories: Mapping[int, Path]) -> list[int]:
        """Returns the versions that the policy lets in, newest first."""
        newest_first = sorted(directories, reverse=True)
        if self.policy.WhichOneof("policy_choice") != "specific":
            return newest_first
        named = set(self.policy.specific.versions)
        for version in sorted(named - set(directories)):
            self._report(version, f"is asked for by the version policy and not in {self.base_path}")
        return [version for version in newest_first if version in named]

    def _version_directories(self) -> dict[int, Path]:
        """Returns the folder of every version, by number."""
        directories: dict[int, Path] = {}
        for child in sorted(self.base_path.iterdir()):
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
        return directories

    def _try_version(self, version: int, directory: Path, wait_until_unchanged: bool) -> bool:
        try:
            if not (directory / SAVED_MODEL_FILE).is_file():
                self._report(version, f"is skipped: no {SAVED_MODEL_FILE} in {directory} (yet)")
                return False
            fingerprint = _fingerprint(directory)
        except FileNotFoundError:  # Files come and go: the folder is being written or deleted.
            return False
        except OSError as error:
            self._report(version, f"is skipped: {directory} cannot be read: {one_line(error)}")
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
            servable = self._load_servable(directory, version)
        except LoadError as error:
            self._failed[version] = fingerprint
            self._set_state(version, VersionState(State.END, str(error)))
            self._report(version, f"is skipped: {directory} cannot be loaded: {error}")
            return False
        with self._lock:
            # A new dictionary: `refresh` reads the present one without the lock.
            self._loaded = {**self._loaded, version: servable}
            self._states[version] = VersionState(State.AVAILABLE)
        self._failed.pop(version, None)
        self._problems.pop(version, None)
        _LOGGER.info("version %d is being served, from %s", version, directory)
        return True

    def _unload_all_but(self, versions: list[int]) -> None:
        leaving = set(self._loaded) - set(versions)
        with self._lock:
            self._loaded = {version: self._loaded[version] for version in versions}
            for version in leaving:
                self._states[version] = VersionState(State.END)
        for version in sorted(leaving):
            _LOGGER.info("version %d is no longer served", version)

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
        try:
            status = path.stat()
        except FileNotFoundError:
            status = path.lstat()  # A symbolic link to nowhere; or gone, which the caller handles.
        name = str(path.relative_to(directory))
        files.add((name, status.st_mode, status.st_size, status.st_mtime_ns))
    return frozenset(files)
