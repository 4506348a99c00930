"""A Hugging Face Hub on loopback: as much of its HTTP interface as one commit needs.

https://huggingface.co/docs/hub/api: repositories are created by POST /api/repos/create; a commit asks
/api/models/OWNER/NAME/preupload/main how each file is to be sent, and is sent as JSON lines. Every file is
`regular` here, so that its content lies in the commit itself.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


@dataclass
class Hub:
    """What was asked of it."""

    url: str = ""
    token: str = "right"
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@contextmanager
def hub_on_loopback() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, content: object) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/api/validate-yaml":  # of the card; asked by anybody
                _, metadata, _ = json.loads(body)["content"].split("---\n", 2)
                faults = [] if isinstance(yaml.safe_load(metadata), dict) else [{"message": "no mapping"}]
                self.answer(200, {"errors": faults, "warnings": []})
            elif self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.answer(401, {"error": "Invalid username or password."})
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                hub.created.append(asked)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                self.answer(200, {"url": f"{hub.url}/{name}", "name": name})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                self.answer(
                    200,
                    {
                        "files": [
                            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                            for file in files
                        ]
                    },
                )
            elif "/commit/" in self.path:
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "header":
                        hub.messages.append(entry["value"]["summary"])
                    elif entry["key"] == "file":
                        hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                self.answer(
                    200, {"commitUrl": f"{hub.url}/me/bolts/commit/0123", "commitOid": "0123", "success": True}
                )
            else:
                self.answer(404, {"error": f"no {self.path} here"})

        def do_GET(self) -> None:
            self.answer(404, {"error": f"no {self.path} here"})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
