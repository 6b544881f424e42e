"""What the teacher has said so far of the shard in hand, so that a killed pass goes on there.

A file that is only ever appended to: a head that says what the pass is, then a record a batch. A
record that a kill cut short, or that does not match its checksum, ends what is read; the pass
overwrites it. No record is ever changed, so nothing that was once read well can get lost.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

_MAGIC = b"sparsedistill labels 2\n"
_RECORD = struct.Struct("<QQIIII")  # block, batch, what of, rows, columns, checksum


class Journal:
    """The batches of one pass that are done.

    Args:
        path: Of the file; made where there is none.
        fingerprint: Of all that decides the batches and their logits. A file of another pass is
            begun anew.
    """

    def __init__(self, path: Path, *, fingerprint: str) -> None:
        head = _MAGIC + hashlib.sha256(fingerprint.encode()).digest()
        self._done: dict[tuple[int, int, int], Floats] = {}
        self._lock = threading.Lock()
        path.touch()
        self._file = path.open("r+b")
        if self._file.read(len(head)) == head:
            end = self._read()
        else:
            self._file.seek(0)
            self._file.write(head)
            end = len(head)
        self._file.truncate(end)
        self._file.seek(end)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._done)

    def found(self, block: int, batch: int, content: int) -> Floats | None:
        """Return the logits of a batch that an earlier pass did, float32 [rows, classes].

        Args:
            block: Number of the block.
            batch: Number of the batch in it.
            content: Checksum, 32 bits, of the rows in it and their tokens: another device or
                tokenizer makes other batches, whose numbers mean nothing here.
        """
        return self._done.get((block, batch, content))

    def add(self, block: int, batch: int, content: int, logits: Floats) -> None:
        """Keep the logits of a batch; from any thread."""
        values = np.ascontiguousarray(logits, np.float32)
        body = values.tobytes()
        head = _RECORD.pack(block, batch, content, *values.shape, 0)
        head = _RECORD.pack(block, batch, content, *values.shape, zlib.crc32(head + body))
        with self._lock:
            self._file.write(head + body)
            self._file.flush()  # out of this process: what a kill cannot take back

    def _read(self) -> int:
        """Read all good records; returns where they end."""
        end = self._file.tell()
        while len(head := self._file.read(_RECORD.size)) == _RECORD.size:
            block, batch, content, rows, columns, checksum = _RECORD.unpack(head)
            body = self._file.read(4 * rows * columns)
            unsigned = _RECORD.pack(block, batch, content, rows, columns, 0)
            if len(body) < 4 * rows * columns or zlib.crc32(unsigned + body) != checksum:
                break
            logits = np.frombuffer(body, np.float32).reshape(rows, columns)
            self._done[block, batch, content] = logits
            end = self._file.tell()
        return end
