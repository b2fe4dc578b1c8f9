"""The files in the folder of --bundles: code bundles, which the API cannot read.

The name of a file is the id of its bundle; or it is the slug of its function, in a subfolder with
the name of the project. The extension does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, List, Mapping, Optional, Tuple

from bt_migrate.errors import UsageError

# extension of source maps, which builds put next to a bundle
SOURCE_MAP = ".map"


@dataclass(frozen=True)
class BundleFiles:
    """The files by name of the subfolder ("" for the folder itself)."""

    option: str = ""
    files: Mapping[str, Tuple[Path, ...]] = field(default_factory=dict)

    def find(self, bundle_id: str, project: str, slug: str) -> Optional[Path]:
        """Returns the file of a function's bundle.

        Raises UsageError if two files match, or if the file is empty.
        """
        return self._named(bundle_id, "") or self._named(slug, project)

    def _named(self, name: str, folder: str) -> Optional[Path]:
        matches = [
            path
            for path in self.files.get(folder, ())
            if path.name == name or path.name.startswith(f"{name}.")
        ]
        if len(matches) > 1:
            raise UsageError(f"{self.option}: {matches[0]} and {matches[1]} are both named {name}")
        if matches and not matches[0].stat().st_size:
            raise UsageError(f"{self.option}: {matches[0]} is empty")
        return matches[0] if matches else None


def bundle_files(name: str, text: str) -> BundleFiles:
    """Returns the files in the folder `text`, none for "". Raises UsageError."""
    if not text:
        return BundleFiles()
    folder = Path(text)
    try:
        files = {"": tuple(_files_in(folder))}
        files.update({inner.name: tuple(_files_in(inner)) for inner in _folders_in(folder)})
    except OSError as error:
        raise UsageError(f"{name}: {text} cannot be read as a folder: {error.strerror}") from None
    return BundleFiles(name, files)


def _files_in(folder: Path) -> Iterator[Path]:
    for path in _visible(folder):
        if path.is_file() and path.suffix != SOURCE_MAP:
            yield path


def _folders_in(folder: Path) -> Iterator[Path]:
    return (path for path in _visible(folder) if path.is_dir())


def _visible(folder: Path) -> List[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
