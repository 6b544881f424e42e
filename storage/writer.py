"""Writing an artifact: files go into a private local directory until it is published whole."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from storage.checksums import checksum
from storage.digests import JSON, normalise_statistics
from storage.errors import StorageError
from storage.manifest import FileEntry, Manifest, Recipe
from storage.names import check_file_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.artifact import Artifact


class ArtifactWriter:
    """What `ArtifactStore.create` hands to a stage.

    Attributes:
        directory: Local directory; every file left below it becomes a file of the artifact.
        statistics: Figures for the manifest; fill it before the with-block ends. NumPy scalars
            become numbers, NaN and infinity become null.
        work: What the making took, for the manifest; as `statistics`.
    """

    def __init__(self, recipe: Recipe, directory: Path) -> None:
        self.directory = directory
        self.statistics: dict[str, JSON] = {}
        self.work: dict[str, JSON] = {}
        self._recipe = recipe
        self._rows: dict[str, int] = {}
        self._started = time.monotonic()
        self._artifact: Artifact | None = None

    def path(self, name: str) -> Path:
        """Where to write the file `name`; directories in the name are made.

        Raises:
            StorageError: the name could leave the artifact's directory.
        """
        path = self.directory / check_file_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory for what does not fit the memory, on the store's disk; removed at the end.

        What a killed process leaves there is swept away with the rest of its directory.
        """
        with tempfile.TemporaryDirectory(dir=self.directory, prefix=".scratch-") as path:
            yield Path(path)

    def set_rows(self, name: str, n: int) -> None:
        """Note in the manifest how many rows a file has."""
        self._rows[check_file_name(name)] = n

    @property
    def artifact(self) -> Artifact:
        """The published artifact, after the with-block.

        Where another process published the same recipe first, it is the other's.
        """
        if self._artifact is None:
            raise StorageError(
                "the artifact exists only after the with-block of create() has ended"
            )
        return self._artifact

    @artifact.setter
    def artifact(self, artifact: Artifact) -> None:
        self._artifact = artifact

    def manifest(self, tool_version: str) -> Manifest:
        """The manifest of what lies in the directory now: reads every file once.

        Raises:
            StorageError: no file and no content digest, rows of an unknown file, links, unsafe
                names, statistics that are not JSON.
        """
        recipe = self._recipe
        files = tuple(self._entry(name) for name in self._names())
        unknown = sorted(self._rows.keys() - {file.name for file in files})
        if unknown:
            raise StorageError(f"set_rows() names files that were not written: {unknown}")
        if not files and recipe.content is None:
            raise StorageError(f"nothing was written for {recipe.kind}/{recipe.key}")
        return Manifest(
            kind=recipe.kind,
            key=recipe.key,
            version=recipe.version,
            config=recipe.config,
            inputs=recipe.inputs,
            content=recipe.content,
            files=files,
            statistics=cast("dict[str, JSON]", normalise_statistics(self.statistics)),
            seconds=round(time.monotonic() - self._started, 3),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            tool_version=tool_version,
            work=cast("dict[str, JSON]", normalise_statistics(self.work, "work")),
        )

    def _names(self) -> list[str]:
        found = []
        for parent, directories, names in os.walk(self.directory):
            for name in directories + names:
                path = Path(parent) / name
                if path.is_symlink():
                    raise StorageError(f"{path.name} is a link; an artifact holds its own bytes")
                if name in names:
                    found.append(path.relative_to(self.directory).as_posix())
        return sorted(check_file_name(name) for name in found)

    def _entry(self, name: str) -> FileEntry:
        path = self.directory / name
        return FileEntry(name, path.stat().st_size, checksum(path), self._rows.get(name))
