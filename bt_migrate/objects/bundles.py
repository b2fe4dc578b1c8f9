"""Uploads code bundles that a person has (--bundles), as `braintrust push` does.

POST /function/code gives a signed URL and the id of the new bundle (Python SDK cli/push.py, JS SDK
functions/upload.ts). A bundle of the runtime `node` is stored gzipped, others as they are.
"""

from __future__ import annotations

import gzip
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from bt_migrate.api.answers import an_object
from bt_migrate.api.client import Api
from bt_migrate.api.transport import GZIP_MAGIC
from bt_migrate.config.bounded import MAX_LARGE_BYTES, read_bounded
from bt_migrate.errors import (
    NOT_THERE,
    AnswerError,
    ApiError,
    NetworkError,
    Route,
    UsageError,
)
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.objects.lists import Lists

log = logging.getLogger("bt_migrate.objects")

CODE_PATH = "/function/code"
GZIPPED_RUNTIME = "node"
GZIP_HEADERS = {"Content-Encoding": "gzip"}


class NotOffered(Exception):
    """The destination's server does not offer uploads of code bundles."""


@dataclass
class BundleUploads:
    """Uploads each file once a process. Safe for many threads."""

    dest: Api
    _ids: Dict[Path, str] = field(default_factory=dict)
    # Why nothing can be uploaded: the server has no such route.
    _not_offered: Optional[ApiError] = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def bundle_id(self, path: Path, runtime_context: Mapping[str, Any]) -> str:
        """The id of the destination's bundle. Raises ApiError, or UsageError for the file.

        Raises NotOffered if the server has no such route, which is asked for once. Safe to repeat:
        a bundle to which no function refers does nothing.
        """
        with self._lock:
            if path not in self._ids and self._not_offered is None:
                try:
                    self._ids[path] = self._upload(path, runtime_context)
                except ApiError as error:
                    if error.status not in NOT_THERE:
                        raise
                    self._not_offered = error
                    log.error("code bundles cannot be uploaded: %s", error)
            if path not in self._ids:
                raise NotOffered
            return self._ids[path]

    def _upload(self, path: Path, runtime_context: Mapping[str, Any]) -> str:
        content, headers = _stored_form(_content(path), runtime_context)
        body = {"org_id": self.dest.org_id, "runtime_context": dict(runtime_context)}
        check = an_object("url", "bundleId")

        def use() -> str:
            answer = self.dest.post(CODE_PATH, body, check=check).json
            self.dest.store.upload(answer["url"], headers, content)
            return str(answer["bundleId"])

        try:
            return self.dest.store.retrying(use)
        except NetworkError as error:
            if error.final:
                raise
            reason = f"its bundle cannot be uploaded: {error}"
            raise AnswerError(Route(self.dest.side, "POST", CODE_PATH), 200, reason) from None


def _content(path: Path) -> bytes:
    try:
        return read_bounded(path, MAX_LARGE_BYTES)
    except OSError as error:
        raise UsageError(f"--bundles: {path} cannot be read: {error.strerror}") from None


def _stored_form(content: bytes, runtime_context: Mapping[str, Any]) -> Any:
    """(the bytes as the store holds them, the headers of the upload)."""
    if runtime_context.get("runtime") != GZIPPED_RUNTIME:
        return content, {}
    is_gzipped = content.startswith(GZIP_MAGIC)
    return content if is_gzipped else gzip.compress(content, mtime=0), GZIP_HEADERS


def with_bundle_id(body: Mapping[str, Any], bundle_id: str) -> Dict[str, Any]:
    """The body of a function with another bundle."""
    data = {**body["function_data"]["data"], "bundle_id": bundle_id}
    return {**body, "function_data": {**body["function_data"], "data": data}}


def unused_files(lists: Lists, resource: Resource) -> List[Path]:
    """The files in the folder of --bundles that are of no object of the kind."""
    files = [path for paths in lists.settings.bundles.files.values() for path in paths]
    used = {bundle_file(lists, resource, obj) for obj in lists.source_list_or_empty(resource)}
    return [path for path in files if path not in used]


def bundle_file(lists: Lists, resource: Resource, source: Mapping[str, Any]) -> Optional[Path]:
    """The file that a person has of the bundle of a source object, None without one."""
    bundle = resource.bundle(source)
    if not bundle or not lists.settings.bundles.files:
        return None
    project = lists.source_object(PROJECTS, source["project_id"]) or {}
    names = (bundle.get("bundle_id"), project.get("name"), source.get("slug"))
    return lists.settings.bundles.find(*map(str, names))
