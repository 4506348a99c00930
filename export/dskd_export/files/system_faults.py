"""Hints for faults of the machine, by the system's error number."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

_DISK = "Check the disk (its reasons are in dmesg), or choose a folder on another disk."
_NETWORK = "Check the mount and the network, then run the same command again; or choose a folder on a local disk."
_RIGHTS = "Check who owns it, or choose another folder."
_UNSUPPORTED = "Choose a folder on a local disk; this file system cannot do what is needed."
_KEY = "Unlock the encrypted folder or renew the login (kinit), or choose another folder."
_FILES = "Lower data.workers, or raise the limit: ulimit -n 4096"

# Never our fault, wherever they come from.
_FAULTS = {
    "ENOSPC": "Free space on that disk, or choose a folder on another one.",
    "EDQUOT": "Free some space within your quota, or choose a folder on another disk.",
    "EFBIG": "Raise the limit (ulimit -f unlimited), or choose a disk that takes large files.",
    "EROFS": "Choose a folder on a disk that can be written to.",
    **dict.fromkeys(("EACCES", "EPERM"), _RIGHTS),
    **dict.fromkeys(("EIO", "EREMOTEIO", "ENXIO", "ENODEV", "ENOMEDIUM", "EUCLEAN", "EBADMSG"), _DISK),
    **dict.fromkeys(
        ("ESTALE", "ETIMEDOUT", "ENOTCONN", "ESHUTDOWN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
        _NETWORK,
    ),
    **dict.fromkeys(("EPROTO", "ECOMM", "ENOLINK"), _NETWORK),
    **dict.fromkeys(("EOPNOTSUPP", "ENOSYS", "ENOLCK"), _UNSUPPORTED),
    **dict.fromkeys(("ENOKEY", "EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED"), _KEY),
    **dict.fromkeys(("EMFILE", "ENFILE"), _FILES),
    "EXDEV": "Copy the folder to one file system (cp -a), and name the copy.",
    "EBUSY": "Close the program that uses it, then run the same command again.",
    "ETXTBSY": "Close the program that uses it, then run the same command again.",
    "ENAMETOOLONG": "Choose a shorter path.",
    "ELOOP": "A part of this path is a link that leads nowhere: choose another path.",
    "EILSEQ": "This file system does not take such a name: choose another path.",
    "ENOMEM": "Close other programs, or lower train.batch_size or data.workers.",
}

SYSTEM_FAULTS: Mapping[int, str] = {
    number: hint for name, hint in _FAULTS.items() if (number := getattr(errno, name, None)) is not None
}
"""Number of the error -> hint."""

_FOLDER = "A part of this path is a file, not a folder: choose another folder."

WRITING_FAULTS: Mapping[int, str] = {
    **SYSTEM_FAULTS,
    errno.ENOTDIR: _FOLDER,
    errno.EEXIST: _FOLDER,
    errno.EISDIR: "There is a folder of that name: move it away, or choose another folder.",
    errno.ENOENT: "The folder was removed meanwhile: run the same command again.",
    errno.ENOTEMPTY: "Another process writes to this folder: run the same command again once it has ended.",
    errno.EMLINK: "The folder is full: choose another one.",
    errno.EINVAL: "This file system does not take such a name: choose another folder.",
}
"""The same for a file that is being written to a place that a person named."""

_PLAIN = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EROFS: "The file system is read-only",
}


def explain_fault(error: OSError) -> tuple[str, str] | None:
    """Explain what the system refused, where, and what to change; None where the fault may be ours."""
    if error.errno is None or error.errno not in SYSTEM_FAULTS:
        return None
    what, where = _PLAIN.get(error.errno, os.strerror(error.errno)), error.filename2 or error.filename
    named = isinstance(where, (str, bytes)) and where
    return f"{what}: {os.fsdecode(where)}" if named else f"{what}.", SYSTEM_FAULTS[error.errno]
