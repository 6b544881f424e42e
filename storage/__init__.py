"""Artifact store, tables and sources of raw text, on any file system fsspec reaches.

Knows no model and no Prefect, and imports nothing else of this distribution.
"""

from __future__ import annotations

from storage.artifact import Artifact
from storage.digests import JSON, canonical_json, sha256_file, sha256_json
from storage.errors import (
    DamagedArtifactError,
    NoStoreError,
    SourceError,
    StorageError,
    StoreFullError,
    StoreUnreachableError,
    StoreVersionError,
)
from storage.garbage import Collection, Freed, Kept, Rules
from storage.leases import Lease
from storage.lineage import LineageNode
from storage.manifest import FileEntry, Input, Manifest, Recipe
from storage.readers import BadRow, LabelledRows, read_labelled, read_texts
from storage.records import Record
from storage.sources import Source, expand_sources, format_of
from storage.store import ArtifactStore
from storage.tables import (
    TableWriter,
    open_writer,
    read_batches,
    read_row_groups,
    read_table,
    size_in_memory,
    write_table,
)
from storage.verification import Verification
from storage.writer import ArtifactWriter

__all__ = [
    "JSON",
    "Artifact",
    "ArtifactStore",
    "ArtifactWriter",
    "BadRow",
    "Collection",
    "DamagedArtifactError",
    "FileEntry",
    "Freed",
    "Input",
    "Kept",
    "LabelledRows",
    "Lease",
    "LineageNode",
    "Manifest",
    "NoStoreError",
    "Recipe",
    "Record",
    "Rules",
    "Source",
    "SourceError",
    "StorageError",
    "StoreFullError",
    "StoreUnreachableError",
    "StoreVersionError",
    "TableWriter",
    "Verification",
    "canonical_json",
    "expand_sources",
    "format_of",
    "open_writer",
    "read_batches",
    "read_labelled",
    "read_row_groups",
    "read_table",
    "read_texts",
    "sha256_file",
    "sha256_json",
    "size_in_memory",
    "write_table",
]
