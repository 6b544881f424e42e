"""Garbage collection of a store on a disk without a free byte; `tests/storage/test_full_disk.py`.

    unshare -Urm python tests/helpers/full_gc.py MOUNT WHAT

MOUNT, an empty directory, becomes a small disk of this process's own. WHAT is `ballast`, or `dead`:
the store has no ballast then, but a dead process's temporary directory. Prints what was freed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from storage import ArtifactStore, Recipe, Rules
from storage.scratch import make_temporary


def main(mount: str, what: str) -> None:
    """Fill the disk, collect twice."""
    disk = Path(mount)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], check=True)
    store = ArtifactStore(disk / "store")
    for number in range(3):
        with store.create(Recipe("thing", 1, {"n": number})) as writer:
            writer.path("data.bin").write_bytes(os.urandom(20_000))
    if what == "dead":
        (disk / "store" / ".ballast").unlink()
        ended = subprocess.Popen(["true"])
        ended.wait()
        left = make_temporary(disk / "store" / ".tmp", "thing", "0" * 32)
        (left / "half.bin").write_bytes(os.urandom(100_000))
        left.rename(left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")))
    try:
        with (disk / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)
    except OSError as error:
        sys.stderr.write(f"{error.strerror}\n")
    rules = Rules(roots=lambda _: {}, owns=lambda _: ())
    freed = [len(store.collect(rules, delete=True, older_than=-10).freed) for _ in range(2)]
    ballast = disk / "store" / ".ballast"
    answer = {"freed": freed, "ballast": ballast.stat().st_size, "left": len(store.artifacts())}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
