"""Nothing goes over the network, and nothing is reported to anybody

Commands run in a network namespace without interfaces, and every system call that could reach a network is watched, in
native code and in child processes, too: not one address of IPv4 or IPv6 is connected to, sent to or bound, not even to look
up a name. The home folder stays empty as well, since telemetry begins with an identity that is kept there: ONNX Runtime's
and OpenVINO's are switched off by the commands and by `import s2mlp_deploy`. Variables that tell runtimes that this is
only a test are removed.

Not covered: what a program does that loads ONNX Runtime before `s2mlp_deploy` ([apps.md](apps.md)), TensorRT engines that
run on a GPU, `serve.py`, which is a server, and systems other than Linux. Signing and checking signatures loads urllib3, which binds a
socket of this machine's own address ::1 for a moment to see whether there is IPv6.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers import npm
from helpers.reliability.record import Trials
from helpers.shift_nets import NETS
from helpers.support import EXAMPLES, PAPER_CHECKPOINT, TEST_IMAGES, save_checkpoint, small_spec

CALLS = "socket,connect,bind,sendto,sendmsg,sendmmsg"

COMMANDS = """
import importlib
import json
import sys
import time

steps, seconds = json.loads(sys.argv[1])
for module, function, *arguments in steps:
    sys.argv = [function, *arguments]
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as stop:
        if stop.code:
            raise
time.sleep(seconds)
"""

LINGER = 25
"""Seconds after which ONNX Runtime's telemetry has tried to send, if it is on: it took 16."""

REACHING = re.compile(r"(?:AF|PF)_(?:INET|INET6|PACKET)\b")

EXAMPLE = str(PAPER_CHECKPOINT)
IMAGES = ("--data", str(TEST_IMAGES), "--data-count", "20")
INT8 = ("--precision", "int8", "--calibration", str(TEST_IMAGES), "--min-agreement", "0.9")
ON_NPU = ("--target", "litert-micro", "--shift", "slice", "--batch", "1", "--npu", "ethos-u55-128")
INSPECT, EXPORT, VERIFY, REPAIR, DOCTOR = (
    ("s2mlp_deploy.cli.entry_points", name) for name in ("inspect", "export", "verify", "repair", "doctor")
)
SWEEP = ("s2mlp_deploy.cli.entry_points", "sweep")
BENCH = ("s2mlp_deploy.cli.entry_points", "bench")

RUNS: dict[str, list[tuple[str, ...]]] = {
    "inspect and doctor": [(*INSPECT, EXAMPLE), (*DOCTOR,)],
    "onnx": [
        (*EXPORT, EXAMPLE, *IMAGES, "--sbom", "--plot", "error.svg", "--latency"),
        (*VERIFY, "fashion_mnist-onnx-fp32"),
    ],
    "repair": [
        (*REPAIR, str(NETS["detector"].file("dynamo", "free")), "--latency", "--sbom", "-o", "repaired"),
        (*VERIFY, "repaired"),
        (*EXPORT, "repaired", "--format", "ort"),
    ],
    "fp16 and int8": [(*EXPORT, EXAMPLE, *INT8), (*EXPORT, EXAMPLE, "--precision", "fp16")],
    "entropy": [(*EXPORT, EXAMPLE, *INT8, "--calibration-method", "entropy")],
    "ort": [(*EXPORT, EXAMPLE, *INT8, "--format", "ort"), (*VERIFY, "fashion_mnist-ort-int8")],
    "openvino": [(*EXPORT, EXAMPLE, "--format", "openvino"), (*VERIFY, "fashion_mnist-openvino-fp32")],
    "sweep": [(*SWEEP, str(EXAMPLES / "sweep.toml"), "--workers", "1")],
    "litert": [(*EXPORT, EXAMPLE, "--format", "litert"), (*VERIFY, "fashion_mnist-litert-fp32")],
    "vela": [
        (*EXPORT, "../small.pt", *INT8, *ON_NPU, "--format", "litert"),
        (*VERIFY, "small-litert-int8"),
    ],
    "executorch": [(*EXPORT, EXAMPLE, "--format", "executorch"), (*VERIFY, "fashion_mnist-executorch-fp32")],
    "coreml": [(*EXPORT, EXAMPLE, "--format", "coreml", "--allow-unverified-engine")],
    "triton": [(*EXPORT, EXAMPLE, "--format", "triton"), (*VERIFY, "fashion_mnist-triton-fp32")],
    "web": [(*EXPORT, EXAMPLE, *IMAGES, "--format", "web"), (*VERIFY, "fashion_mnist-web-fp32")],
    "trt-rtx": [(*EXPORT, EXAMPLE, "--format", "trt-rtx", "--allow-unverified-engine")],
    "bench": [
        (*EXPORT, EXAMPLE),
        (*BENCH, "fashion_mnist-onnx-fp32", "--baseline", "all", "--min-seconds", "0.3", "--html", "x.html"),
    ],
}
NEEDED = {
    "web": npm.has("onnxruntime-web"),
    "trt-rtx": find_spec("tensorrt_rtx") is not None,
    "litert": find_spec("ai_edge_litert") is not None,
    "vela": find_spec("ethosu") is not None,
    "executorch": find_spec("executorch") is not None,
    "coreml": find_spec("coremltools") is not None,
}


def watched(directory: Path, *command: str, **variables: str) -> list[str]:
    """Run ``command`` in ``directory``, without a network and with an empty home; the calls that would have reached one."""
    home, trace = directory / "home", directory.with_suffix(".trace")
    home.mkdir()
    telling = re.compile("CI|GITHUB_ACTIONS|TF_BUILD|JENKINS_URL|ORT_.*|.*TELEMETRY.*|XDG_.*")
    around = {name: value for name, value in os.environ.items() if not telling.fullmatch(name)}
    done = subprocess.run(
        [
            "unshare",
            "--map-root-user",
            "--net",
            "strace",
            "--seccomp-bpf",
            "-f",
            "-qq",
            "-e",
            f"trace={CALLS}",
            "-e",
            "signal=none",
            "-o",
            str(trace),
            *command,
        ],
        cwd=directory,
        env={**around, "HOME": str(home), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in trace.read_text().splitlines() if REACHING.search(line)]


def left_in(home: Path) -> set[str]:
    """Files that were left there; a cache of fonts tells nobody anything."""
    found = {p.relative_to(home).as_posix() for p in home.rglob("*") if not p.is_dir()}
    return {name for name in found if "matplotlib" not in name}


def ran(
    directory: Path, steps: list[tuple[str, ...]], seconds: float = 0, **variables: str
) -> tuple[list[str], set[str]]:
    """What ``steps`` would have reached, and what they left in the home folder; the process then waits for ``seconds``."""
    directory.mkdir()
    calls = watched(directory, sys.executable, "-c", COMMANDS, json.dumps([steps, seconds]), **variables)
    return calls, left_in(directory / "home")


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    """What this needs of the machine."""
    if not (shutil.which("strace") and shutil.which("unshare")):
        pytest.skip("no strace, or no unshare: apt-get install strace util-linux")
    probe = subprocess.run(
        ["unshare", "--map-root-user", "--net", "strace", "-qq", "-o", os.devnull, "true"], capture_output=True
    )
    if probe.returncode:
        pytest.skip("this system allows no network namespace, or no tracing")


def test_one_process_that_does_everything(tmp_path: Path, trials: Trials) -> None:
    """A small checkpoint is inspected, exported in four formats with its bill of materials, and verified, its bundle becomes a package
    for Core ML, and an ONNX file of another tool is repaired, in one process."""
    save_checkpoint(tmp_path / "small.pt", small_spec())
    network = NETS["detector"]
    formats = ("onnx", "ort", "openvino", "triton")
    steps = [
        (*INSPECT, "../small.pt"),
        (*EXPORT, "../small.pt", "--sbom", *(w for f in formats for w in ("--format", f))),
    ]
    steps += [(*VERIFY, f"small-{f}-fp32") for f in formats]
    if NEEDED["coreml"]:
        steps.append((*EXPORT, "small-onnx-fp32", "--format", "coreml", "--allow-unverified-engine"))
    repairing = (*REPAIR, str(network.file("dynamo", "free")), "--reference", str(network.recording), "-o", "repaired")
    steps += [repairing, (*VERIFY, "repaired")]
    assert ran(tmp_path / "run", steps) == ([], set())
    trials.tried("commands", len(steps))


def test_signing(tmp_path: Path, trials: Trials) -> None:
    """A bundle is signed, and its signature checked, in one process: but for binding ::1, nothing is reached."""
    pytest.importorskip("model_signing", reason="no model-signing: pip install '.[sign]'")
    from helpers import signing_keys

    save_checkpoint(tmp_path / "small.pt", small_spec())
    signing_keys.write_keys(tmp_path)
    steps = [
        (*EXPORT, "../small.pt", "--sign", "../release.key"),
        (*VERIFY, "small-onnx-fp32", "--key", "../release.pub"),
    ]
    calls, left = ran(tmp_path / "run", steps)
    own = re.compile(r'socket\(AF_INET6, SOCK_STREAM|bind\(\d+, \{sa_family=AF_INET6, .*"::1"')
    assert ([call for call in calls if not own.search(call)], left) == ([], set())
    trials.tried("commands", len(steps))


@pytest.mark.parametrize("name", RUNS)
def test_every_command_and_format(name: str, tmp_path: Path, trials: Trials) -> None:
    """Every command, format and baseline that runs here, each in a process that lives on for 25 seconds, which is when telemetry sends."""
    if not trials.thorough:
        pytest.skip("only with --thorough: each takes half a minute")
    if not NEEDED.get(name, True):
        pytest.skip(f"{name} cannot be made here")
    save_checkpoint(tmp_path / "small.pt", small_spec(depth=1))
    assert ran(tmp_path / "run", RUNS[name], LINGER) == ([], set())
    trials.tried("commands", len(RUNS[name]))


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket(socket.AF_INET).connect_ex(('192.0.2.1', 443))",
        "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "import ctypes; ctypes.CDLL(None).getaddrinfo(b'example.org', b'443', None, ctypes.byref(ctypes.c_void_p()))",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', \"import socket; socket.getaddrinfo('example.org', 443)\"])",
    ],
    ids=["connect", "socket", "native code", "child process"],
)
def test_an_attempt_is_noticed(code: str, tmp_path: Path, trials: Trials) -> None:
    """The watch is put to the test: a connection, a datagram socket, a name that native code looks up, and one of a child process."""
    (tmp_path / "run").mkdir()
    assert watched(tmp_path / "run", sys.executable, "-c", code)
    trials.tried("attempts noticed")


def test_telemetry_that_is_on_is_noticed(pristine: Path, tmp_path: Path, trials: Trials) -> None:
    """A bundle is verified with ONNX Runtime's telemetry switched on: what it leaves in the home folder, and later sends, is noticed."""
    import onnxruntime

    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 29):
        pytest.skip("this ONNX Runtime has no telemetry on Linux")
    steps = [(*VERIFY, str(pristine))]
    calls, left = ran(tmp_path / "run", steps, LINGER if trials.thorough else 0, ORT_DISABLE_TELEMETRY="0")
    assert any("onnxruntime" in name for name in left)
    assert calls or not trials.thorough
    trials.tried("reports noticed")
    trials.note(f"left in the home folder: {', '.join(sorted(Path(name).name for name in left))}")
