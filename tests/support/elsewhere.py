"""A device for machines without a GPU that refuses what a GPU refuses: tensors of two devices in one kernel.

elsewhere.py build FOLDER COMPILER   compiles it (a minute)
elsewhere.py run [LIBRARY]           carries out a command line of ``lethe`` for each line of standard input, on the
                                     device or on the CPU; prints a JSON list of [exit code, end of the output];
                                     a line that begins with ``cut`` is asked to end after some steps
elsewhere.py check LIBRARY           sees that it refuses
"""

import contextlib
import importlib.util
import io
import json
import shlex
import signal
import subprocess
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cpp")
NAME = "elsewhere"
CUT = 12  # how often a run that is to be cut may go on


def build(folder: Path, compiler: str) -> Path:
    """Compile the device and return the library's path."""
    import sysconfig

    import torch
    from torch.utils.cpp_extension import include_paths, library_paths

    library = folder / f"{NAME}.so"
    words = [compiler, "-shared", "-fPIC", "-std=c++20", "-O0", "-w", f"-DTORCH_EXTENSION_NAME={NAME}"]
    words += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}", "-DTORCH_API_INCLUDE_EXTENSION_H"]
    words += [w for path in [*include_paths(), sysconfig.get_path("include")] for w in ("-isystem", path)]
    words += [str(SOURCE), "-o", str(library)]
    for path in library_paths():
        words += [f"-L{path}", f"-Wl,-rpath,{path}"]
    words += ["-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python"]
    subprocess.run(words, check=True, capture_output=True, text=True)
    return library


def start(library: str) -> None:
    """Make the device known to torch, under `NAME`."""
    import torch

    torch.utils.rename_privateuse1_backend(NAME)
    spec = importlib.util.spec_from_file_location(NAME, library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.start()
    calls = {
        "is_available": True,
        "is_initialized": True,
        "_is_in_bad_fork": False,
        "device_count": 1,
        "current_device": 0,
    }
    named = types.ModuleType(f"torch.{NAME}")
    for name, value in calls.items():
        setattr(named, name, lambda value=value: value)
    named.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]  # type: ignore[attr-defined]
    for name in ("manual_seed", "manual_seed_all", "synchronize"):
        setattr(named, name, lambda *_: None)
    torch._register_device_module(NAME, named)


def run(library: str | None) -> None:
    """Carry out the runs that standard input names, on the device or on the CPU."""
    import torch

    import cl.run
    from cl.cli.main import main as lethe

    if library is not None:
        start(library)
    device = torch.device("cpu" if library is None else f"{NAME}:0")
    cl.run.find = lambda name: device  # type: ignore[attr-defined]
    from cl.engine import Engine

    offer, left = Engine.offer_pause, 0

    def offer_pause(engine: Engine) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGTERM)
        offer(engine)

    Engine.offer_pause = offer_pause  # type: ignore[method-assign]
    ended = []
    for line in sys.stdin.read().splitlines():
        out, words = io.StringIO(), shlex.split(line)
        left = CUT if words[0] == "cut" else 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                code: int | str = lethe(words[left > 0 :])
            except Exception as error:
                code = f"{type(error).__name__}: {error}"[:500]
                traceback.print_exc()
        ended.append([code, out.getvalue()[-3000:]])
    print(json.dumps(ended))


def refused(call: Callable[[], object], words: str) -> bool:
    """Return whether a call ends with an error that says `words`."""
    try:
        call()
    except RuntimeError as error:
        return words in str(error)
    return False


def check(library: str) -> None:
    """See that the device computes as the CPU does, mixes nothing and knows which kernels are not deterministic."""
    import torch
    import torch.nn.functional as F

    start(library)
    a, b = torch.randn(3, 4), torch.randn(4, 4)
    x, y = a.to(NAME), b.to(NAME)
    assert x.device.type == NAME
    assert torch.equal((x @ y).cpu(), a @ b)
    for mixed in (
        lambda: x @ b,
        lambda: x + a,
        lambda: torch.cat([x, a]),
        lambda: x.index_select(0, torch.tensor([0])),
    ):
        assert refused(mixed, "same device")
    assert refused(lambda: torch.vmap(lambda row: row @ b)(x), "same device")
    assert torch.equal((x * torch.tensor(2.0)).cpu(), a * 2)  # one number may lie on the CPU, as on a GPU
    view = x.view(4, 3)[1:]
    view += 1
    assert torch.equal(x.cpu().view(4, 3)[1:], a.view(4, 3)[1:] + 1)
    scores, labels = torch.randn(2, 3, 4).to(NAME), torch.zeros(2, 4, dtype=torch.long).to(NAME)
    torch.use_deterministic_algorithms(True)
    assert refused(lambda: F.cross_entropy(scores, labels), "deterministic")


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), sys.argv[3])
    elif sys.argv[1] == "run":
        run(sys.argv[2] if len(sys.argv) > 2 else None)
    else:
        check(sys.argv[2])
