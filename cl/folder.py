"""The run folder: what is written where, who may write, and what state a run is in."""

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import torch
import yaml

import cl
from cl.errors import ConfigError
from cl.files import atomic_path
from cl.settings import read_anyhow

STATES = ("running", "complete", "failed", "interrupted")
# Keys that say where and how a run is carried out, not what it computes.
_OUTSIDE = ("seed", "replicas", "output", "name", "group", "tags", "resume", "tracker", "data", "checkpoint", "threads")


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 8 hexadecimal digits that name what a run computes: equal for the seeds of one configuration."""
    inside = {k: v for k, v in read_anyhow(config).items() if k not in _OUTSIDE}
    if isinstance(choices := inside.get("choices"), dict):
        inside["choices"] = {group: name for group, name in choices.items() if group not in _OUTSIDE}
    return hashlib.blake2b(json.dumps(inside, sort_keys=True).encode(), digest_size=4).hexdigest()


def code_hash(*more: type) -> str:
    """Return a hash of the sources of this project and of the modules of the classes in `more`."""
    package = Path(cl.__file__).parent
    files = {*package.rglob("*.py"), *(package.parent / "strategies").glob("*.py")}
    for kind in more:
        source = getattr(sys.modules.get(kind.__module__), "__file__", None)
        files |= {Path(source)} if source else set()
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def own_code_hash(*kinds: type) -> str:
    """Return a hash of the modules of classes that are not of this project; "" where all are."""
    ours = Path(cl.__file__).parents[1]
    files = {Path(str(getattr(sys.modules.get(kind.__module__), "__file__", None))).resolve() for kind in kinds}
    own = sorted(f for f in files if f.is_file() and not any(f.is_relative_to(ours / p) for p in ("cl", "strategies")))
    digest = hashlib.blake2b(digest_size=8)
    for path in own:
        digest.update(path.read_bytes())
    return digest.hexdigest() if own else ""


class RunFolder:
    """One run's folder.

    Args:
        path: where; it is made if missing.

    Raises:
        ConfigError: it cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(path / ".lock")
            self._lock.acquire(timeout=1)  # somebody who only looks (`lethe runs`) holds it for an instant
        except filelock.Timeout as error:
            owner = self._owner()
            raise ConfigError(f"Expected {path} to be free, got a run in progress ({owner})") from error
        except OSError as error:
            raise ConfigError(
                f"Expected `output` a folder that can be written, got {path} ({error.strerror or error})"
            ) from error

    def _owner(self) -> str:
        try:
            status = json.loads((self.path / "status.json").read_text())
            return f"process {status['pid']} on {status['host']}"
        except (OSError, ValueError, KeyError):
            return "owner unknown"

    def start(
        self, config: Mapping[str, Any], fingerprint: str, device: torch.device, started: float, own_code: str
    ) -> None:
        """Write what is known before training: configuration, fingerprint of the data, environment, state."""
        self.write("config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        self.write("fingerprint.txt", fingerprint + "\n")
        self.write("environment.json", json.dumps({**environment(device), "own_code": own_code}, indent=1))
        self.status("running", started=started)

    def write(self, name: str, text: str) -> None:
        """Write a text file atomically."""
        with atomic_path(self.path / name) as path:
            path.write_text(text)

    def status(self, state: str, message: str = "", **facts: Any) -> None:
        """Record the state of the run: one of `STATES`."""
        before = read_status(self.path)
        kept = {k: before[k] for k in ("started",) if k in before}
        now = {"status": state, "message": message, "pid": os.getpid(), "host": socket.gethostname()}
        ended = {} if state == "running" else {"finished": time.time()}
        self.write("status.json", json.dumps({**kept, **now, **ended, **facts}, indent=1))

    def clear(self) -> None:
        """Move what an earlier run left into a hidden folder beside this one, so that nothing is lost."""
        old = [p for p in self.path.iterdir() if p.name != ".lock"]
        if old:
            beside = self.path.parent / ".replaced"
            beside.mkdir(exist_ok=True)
            stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
            target = Path(tempfile.mkdtemp("", f"{self.path.name}-{stamp}-", beside))  # unique whatever the clock says
            target.chmod(0o755)
            for path in old:
                shutil.move(path, target / path.name)

    def close(self) -> None:
        """Let others write the folder."""
        self._lock.release()


def read_status(path: Path) -> dict[str, Any]:
    """Return a run folder's recorded state, {} where there is none."""
    try:
        found: dict[str, Any] = json.loads((path / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def environment(device: torch.device) -> dict[str, Any]:
    """Return what a reader needs to judge or repeat a run: versions, machine, device, git state, command."""
    facts: dict[str, Any] = {
        "lethe": cl.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "command": sys.argv,
        "code": code_hash(),
    }
    if device.type == "cuda":
        facts["device_name"] = torch.cuda.get_device_name(device)
    facts |= _git(Path(cl.__file__).parent)
    return facts


def _git(folder: Path) -> dict[str, Any]:
    """Return commit and cleanness of the checkout this code is from, {} outside one."""
    command = ["git", "-C", str(folder)]
    try:
        commit = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        changed = subprocess.run(
            [*command, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git_commit": commit.stdout.strip(), "git_clean": not changed.stdout.strip()}
