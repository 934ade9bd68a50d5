"""A stand-in for W&B's server on loopback: enough for online runs, artifacts, `wandb sync`, sweeps and agents."""

import gzip
import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

OWNER = {"id": "owner", "name": "me"}


class Server(ThreadingHTTPServer):
    """Keeps runs[id] = {config, history, summary, exitcode, name, group, tags}, artifacts, and files[path] = bytes.

    It answers nothing while `open` is not set, and only with errors while `broken` is true.
    """

    daemon_threads = True
    broken = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.sweeps: dict[str, str] = {}
        self.queue: list[dict[str, Any]] = []
        self.artifacts: list[dict[str, str]] = []
        self.open = threading.Event()
        self.open.set()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def run(self, ident: str) -> dict[str, Any]:
        return self.runs.setdefault(ident, {"config": {}, "history": [], "summary": {}, "exitcode": None})

    def handle_error(self, request, client_address) -> None:
        """A client that leaves in the middle of a request is not worth a traceback."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args) -> None:
        """Quiet."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            data = b"".join(parts)
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _answer(self, value: Any, code: int = 200) -> None:
        self.server.open.wait()
        value, code = ({"errors": [{"message": "broken"}]}, 500) if self.server.broken else (value, code)
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self.server.files[self.path] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        stream = re.search(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if stream:
            self._stream(self.server.run(stream[1]), json.loads(body))
        elif self.path.startswith("/graphql"):
            asked = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            answer = getattr(self, f"on_{name[1]}", None) if name else None
            self._answer({"data": answer(asked.get("variables") or {}) if answer else {}})
        else:
            self._answer({}, 404)

    def _stream(self, run: dict[str, Any], sent: dict[str, Any]) -> None:
        files = sent.get("files") or {}
        run["history"] += [json.loads(line) for line in files.get("wandb-history.jsonl", {}).get("content", [])]
        for text in files.get("wandb-summary.json", {}).get("content", [])[-1:]:
            run["summary"] |= json.loads(text)
        if sent.get("complete"):
            run["exitcode"] = sent.get("exitcode")
        self._answer({"exitcode": None, "limits": {}})

    def on_Viewer(self, given):
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}", "admin": False,
                           "teams": {"edges": []}}}  # fmt: skip

    def on_ServerFeaturesQuery(self, given):
        return {"serverInfo": {"features": []}}

    def on_UpsertBucket(self, given):
        run = self.server.run(given["name"])
        config = json.loads(given.get("config") or "{}")
        run["config"] |= {k: v["value"] for k, v in config.items() if k != "_wandb"}
        for key, sent in (("name", "displayName"), ("group", "groupName"), ("tags", "tags"), ("notes", "notes")):
            run[key] = given.get(sent) or run.get(key)
        project = {"id": "p", "name": given.get("project") or "p", "entity": OWNER}
        bucket = {"id": given["name"], "name": given["name"], "displayName": run["name"] or "", "description": "",
                  "config": "{}", "sweepName": None, "historyLineCount": 0, "project": project}  # fmt: skip
        return {"upsertBucket": {"inserted": True, "bucket": bucket}}

    def on_ArtifactType(self, given):
        return {"project": {"artifact": None}}

    def on_CreateArtifact(self, given):
        asked = given["input"]
        name = asked["artifactCollectionName"]
        self.server.artifacts.append({"name": name, "type": asked["artifactTypeName"]})
        found = {"id": name, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": found}}

    def on_CreateArtifactFiles(self, given):
        nodes = [self._artifact_file(f["artifactID"], f["name"]) for f in given["input"]["artifactFiles"]]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def on_CreateArtifactManifest(self, given):
        file = self._artifact_file(given["artifactID"], given["name"])
        return {"createArtifactManifest": {"artifactManifest": {"id": given["artifactID"], "file": file}}}

    def on_UpdateArtifactManifest(self, given):
        file = self._artifact_file(given["artifactManifestID"], "wandb_manifest.json")
        return {"updateArtifactManifest": {"artifactManifest": {"id": given["artifactManifestID"], "file": file}}}

    def on_CommitArtifact(self, given):
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}

    def _artifact_file(self, artifact, name):
        url = f"{self.server.url}/artifacts/{artifact}/{name}"
        return {"id": name, "storagePath": name, "uploadUrl": url, "uploadHeaders": [], "uploadMultipartUrls": None,
                "artifact": {"id": artifact}}  # fmt: skip

    def on_UpsertSweep(self, given):
        name, config = f"sweep{len(self.server.sweeps)}", yaml.safe_load(given["config"])
        self.server.sweeps[name] = given["config"]
        keys = list(config["parameters"])
        for i, values in enumerate(itertools.product(*(config["parameters"][k]["values"] for k in keys))):
            arguments = {k: {"value": v} for k, v in zip(keys, values, strict=True)}
            self.server.queue.append({"type": "run", "run_id": f"{name}-{i}", "args": arguments, "program": None})
        self.server.queue.append({"type": "exit"})
        project = {"id": "p", "name": given.get("projectName"), "entity": OWNER}
        sweep = {"id": name, "name": name, "project": project}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def on_SweepWithRuns(self, given):
        then = "2026-01-01T00:00:00Z"
        sweep = {"id": given["sweep"], "name": given["sweep"], "method": "grid", "state": "RUNNING",
                 "description": None, "config": self.server.sweeps[given["sweep"]], "createdAt": then,
                 "heartbeatAt": then, "updatedAt": then, "earlyStopJobRunning": False, "controller": None,
                 "scheduler": None, "runs": {"edges": []}}  # fmt: skip
        return {"project": {"id": "p", "name": given["project"], "sweep": sweep}}

    def on_CreateAgent(self, given):
        return {"createAgent": {"agent": {"id": "agent"}}}

    def on_Heartbeat(self, given):
        busy = any(json.loads(given.get("runState") or "{}").values())
        commands = [] if busy or not self.server.queue else [self.server.queue.pop(0)]
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}

    def on_CreateRunFiles(self, given):
        base = f"http://{self.headers['Host']}/store/{given['run']}"
        files = [{"name": name, "uploadUrl": f"{base}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
