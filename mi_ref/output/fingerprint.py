"""The SHA-256 of a model's weight files, computed when something first asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mi_ref.errors import WeightError

_CHUNK = 1 << 22


class Fingerprint:
    """The SHA-256 of files' bytes, in the order given.

    Reading gigabytes takes seconds, so nothing is read until the hash is needed: for a saved or
    pickled result. The files are not kept open. If one has changed since this value was made, its
    hash would be that of other weights, and asking for it is an error.

    Parameters
    ----------
    paths : iterable of Path
        Weight files, which exist.
    """

    __slots__ = ("_known", "_stamps")

    def __init__(self, paths: Iterable[Path]) -> None:
        self._stamps = tuple((path.absolute(), _stamp(path)) for path in paths)
        self._known: str | None = None

    @classmethod
    def known(cls, sha256: str | None) -> Fingerprint:
        """Return the fingerprint of files that are not here, by a hash computed elsewhere."""
        made = cls(())
        made._known = sha256
        return made

    def sha256(self) -> str:
        """Return the hash as hex; reads the files whole the first time.

        Raises
        ------
        WeightError
            If a file is gone or has changed.
        """
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> str:
        import hashlib

        digest = hashlib.sha256()
        for path, stamp in self._stamps:
            if _stamp(path) != stamp:
                raise WeightError(
                    f"{path} has changed since the model was loaded, so its SHA-256 is not that of"
                    " the weights in use. Load the model again, and repeat what is to be saved."
                )
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint):
            return NotImplemented
        return self is other or self.sha256() == other.sha256()

    __hash__ = None  # type: ignore[assignment]  # the hash of equal values would have to read files

    def __repr__(self) -> str:
        names = ", ".join(path.name for path, _ in self._stamps)
        return f"<Fingerprint of {self._known or names}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Fingerprint:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Fingerprint.known, (self.sha256(),)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from another one of its name; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
