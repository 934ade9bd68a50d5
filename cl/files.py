"""Writing files so that a reader never sees half of one."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

CHECKPOINT, CHECKPOINT_BEFORE = "checkpoint.pt", "checkpoint.previous.pt"
# No space, over quota, too large for the file system, read-only, not permitted, below a file.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; on success it is synced and renamed to `target`, else removed."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
