"""A bucket of Google Cloud Storage in this process, as far as its clients go here.

Serves the JSON API as gcsfs, tensorstore, google-cloud-storage and array_record use it:
media, multipart and resumable uploads, ranged reads, lists with prefix and delimiter,
metadata with CRC-32C, copies, deletions, and preconditions on generations.
"""

import base64
import contextlib
import hashlib
import http.server
import itertools
import json
import re
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import google_crc32c

_UPLOAD = re.compile(r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o")
_OBJECT = re.compile(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)")
_LIST = re.compile(r"/storage/v1/b/([^/]+)/o")
_BUCKET = re.compile(r"/storage/v1/b/([^/]+)")
_BUCKETS = re.compile(r"/storage/v1/b")  # whose making changes nothing
_MOVE = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/moveTo/o/([^/]+)")
_COPY = re.compile(
    r"/storage/v1/b/([^/]+)/o/([^/]+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)"
)
_TIME = "2026-01-01T00:00:00.000Z"

Objects = dict[str, tuple[bytes, int]]  # "bucket/name" to content, generation.


class _Failure(Exception):
    """An HTTP status."""


class Stored(NamedTuple):
    """What a server holds and sees.

    Attributes:
        url: Where it is.
        objects: All objects, of any bucket.
        requests: Method and path of every request.
        before_write: Is called with "bucket/name" before an object is there.
    """

    url: str
    objects: Objects
    requests: list[str]
    before_write: list[Callable[[str], None]]

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.objects if name.startswith(prefix))


@contextlib.contextmanager
def serving(page_size: int = 1000) -> Iterator[Stored]:
    """A server, on a port of its own."""

    class Handler(_Handler):
        lock = threading.RLock()
        generations = itertools.count(1)
        uploads: dict[str, tuple[str, dict, bytearray]] = {}

    Handler.page_size = page_size
    server = _Server(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    Handler.stored = Stored(url, {}, [], [])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Handler.stored
    finally:
        server.shutdown()
        server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client that was killed
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer
    disable_nagle_algorithm = True
    stored: Stored
    page_size: int

    def log_message(self, *args):
        pass

    def do_any(self):
        path, _, query = self.path.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query))
        self.body = self._read_body()
        self.stored.requests.append(f"{self.command} {urllib.parse.unquote(self.path)}")
        try:
            for pattern, handle in (
                (_UPLOAD, self._upload),
                (_MOVE, self._move),
                (_COPY, self._copy),
                (_OBJECT, self._object),
                (_LIST, self._list),
                (_BUCKET, self._bucket),
                (_BUCKETS, self._bucket),
            ):
                if match := pattern.fullmatch(path):
                    handle(*map(urllib.parse.unquote, match.groups()))
                    return
            raise _Failure(404)
        except _Failure as failure:
            status = failure.args[0]
            error = {"code": status, "message": self.path}
            self._answer(status, json.dumps({"error": error}).encode())

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_any

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": "application/json"} | headers
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer_json(self, content: dict) -> None:
        self._answer(200, json.dumps(content).encode())

    def _found(self, key: str) -> tuple[bytes, int]:
        if key not in self.stored.objects:
            raise _Failure(404)
        return self.stored.objects[key]

    def _check(self, key: str) -> None:
        """Raises unless the object is of the generation that the request expects."""
        _, generation = self.stored.objects.get(key, (b"", 0))
        if self.query.get("ifGenerationMatch", str(generation)) != str(generation):
            raise _Failure(412)
        if self.query.get("ifGenerationNotMatch") == str(generation):
            raise _Failure(304 if self.command == "GET" else 412)

    def _write(self, key: str, data: bytes) -> dict:
        for call in self.stored.before_write:
            call(key)
        with self.lock:
            self._check(key)
            self.stored.objects[key] = (bytes(data), next(self.generations))
            return self._metadata(key)

    def _metadata(self, key: str) -> dict:
        data, generation = self._found(key)
        bucket, _, name = key.partition("/")
        crc32c = google_crc32c.value(data).to_bytes(4)
        return {
            "kind": "storage#object",
            "id": f"{key}/{generation}",
            "bucket": bucket,
            "name": name,
            "size": str(len(data)),
            "generation": str(generation),
            "metageneration": "1",
            "crc32c": base64.b64encode(crc32c).decode(),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "etag": str(generation),
            "updated": _TIME,
            "timeCreated": _TIME,
            "storageClass": "STANDARD",
            "contentType": "application/octet-stream",
            "mediaLink": f"{self.stored.url}/download/storage/v1/b/{bucket}/o/"
            f"{urllib.parse.quote(name, safe='')}?alt=media",
        }

    def _upload(self, bucket: str) -> None:
        if upload_id := self.query.get("upload_id"):
            self._resume(upload_id)
            return
        kind = self.query["uploadType"]
        if kind == "media":
            self._answer_json(self._write(f"{bucket}/{self.query['name']}", self.body))
        elif kind == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
            _, about, data, _ = self.body.split(b"--" + boundary[1].encode())
            about = json.loads(re.split(b"\r?\n\r?\n", about, maxsplit=1)[1])
            data = re.split(b"\r?\n\r?\n", data, maxsplit=1)[1]
            data = data[: -2 if data.endswith(b"\r\n") else -1]
            self._answer_json(self._write(f"{bucket}/{about['name']}", data))
        else:
            name = self.query.get("name") or json.loads(self.body)["name"]
            upload_id = str(next(self.generations))
            self.uploads[upload_id] = f"{bucket}/{name}", self.query, bytearray()
            where = f"{self.stored.url}/upload/storage/v1/b/{bucket}/o"
            where += f"?uploadType=resumable&upload_id={upload_id}"
            self._answer(200, b"{}", Location=where)

    def _resume(self, upload_id: str) -> None:
        key, query, data = self.uploads[upload_id]
        if self.command == "DELETE":
            del self.uploads[upload_id]
            self._answer(499)
            return
        place = re.match(r"bytes (\d+)-\d+/(\d+|\*)", self.headers["Content-Range"])
        if place is None:  # "bytes */5": no more comes
            is_last = True
        else:
            data[int(place[1]) :] = self.body
            is_last = place[2] != "*" and len(data) == int(place[2])
        if is_last:
            self.query = query
            self._answer_json(self._write(key, data))
        else:
            self._answer(308, Range=f"bytes=0-{len(data) - 1}")

    def _object(self, bucket: str, name: str) -> None:
        key = f"{bucket}/{name}"
        with self.lock:
            data, generation = self._found(key)
            self._check(key)
            if self.command == "DELETE":
                del self.stored.objects[key]
                self._answer(204)
                return
        if self.query.get("alt") != "media":
            self._answer_json(self._metadata(key))
            return
        headers = {
            "Content_Type": "application/octet-stream",
            "X_Goog_Generation": str(generation),
            "X_Goog_Hash": f"crc32c={self._metadata(key)['crc32c']}",
        }
        wanted = re.match(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            self._answer(200, data, **headers)
            return
        size = len(data)
        start = int(wanted[1]) if wanted[1] else max(0, size - int(wanted[2]))
        stop = min(int(wanted[2]) + 1, size) if wanted[1] and wanted[2] else size
        if start >= size:
            raise _Failure(416)
        headers["Content_Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._answer(206, data[start:stop], **headers)

    def _list(self, bucket: str) -> None:
        query = self.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        first, end = query.get("startOffset", ""), query.get("endOffset")
        token = query.get("pageToken", "")
        with self.lock:
            names = self.stored.names(f"{bucket}/{prefix}")
            items, prefixes, last = [], [], None
            most = min(int(query.get("maxResults", self.page_size)), self.page_size)
            for name in (name.removeprefix(f"{bucket}/") for name in names):
                if name < first or (end and name >= end):
                    continue
                below = name.removeprefix(prefix)
                if delimiter and delimiter in below:
                    shown = prefix + below.partition(delimiter)[0] + delimiter
                    if shown in prefixes or shown <= token:
                        continue
                    kind, entry = prefixes, shown
                elif name <= token:
                    continue
                else:
                    kind, entry = items, self._metadata(f"{bucket}/{name}")
                if len(items) + len(prefixes) == most:
                    self._answer_json(_page(items, prefixes) | {"nextPageToken": last})
                    return
                kind.append(entry)
                last = entry if kind is prefixes else name
        self._answer_json(_page(items, prefixes))

    def _bucket(self, bucket: str = "new") -> None:
        about = {"kind": "storage#bucket", "name": bucket, "id": bucket}
        self._answer_json(about | {"location": "US", "storageClass": "STANDARD"})

    def _copy(self, *places: str) -> None:
        source, target = "/".join(places[:2]), "/".join(places[2:])
        found = self._write(target, self._found(source)[0])
        self._answer_json(
            found if "/copyTo/" in self.path else {"done": True, "resource": found}
        )

    def _move(self, bucket: str, source: str, target: str) -> None:
        found = self._write(f"{bucket}/{target}", self._found(f"{bucket}/{source}")[0])
        del self.stored.objects[f"{bucket}/{source}"]
        self._answer_json(found)


def _page(items: list[dict], prefixes: list[str]) -> dict:
    return {"kind": "storage#objects", "items": items, "prefixes": prefixes}


if __name__ == "__main__":
    with serving() as running:
        print(running.url, flush=True)
        threading.Event().wait()
