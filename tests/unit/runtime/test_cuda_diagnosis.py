"""What is in a GPU's way is told in words, with the remedy: driver, libraries, device, memory, other processes, a failure meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.fake_cuda import ILLEGAL, NO_MEMORY, FakeGpu, install
from helpers.support import run
from s2mlp_deploy.errors import BundleError, RuntimeMissingError
from s2mlp_deploy.runtime import cuda_diagnosis
from s2mlp_deploy.runtime.cuda_session import CudaSession
from s2mlp_deploy.runtime.onnxruntime import Loading

LIBRARIES = "needs libcublasLt.so.13, which is not here: pip install nvidia-cublas, or for all that it needs, pip install 'onnxruntime-gpu"


def verify(bundle: Path, *options: object) -> str:
    """What s2mlp-verify says where it cannot run the bundle on CUDA: one line, of at most two sentences."""
    ran = run("verify", bundle, "--provider", "cuda", *options)
    assert (ran.code, ran.out) == (4, ""), ran.err
    (message,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert message.count(". ") <= 1 and "Traceback" not in ran.err and "Failed to load" not in ran.err
    return message


# Before a model is loaded


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (FakeGpu(driver=None), "no NVIDIA driver is installed here"),
        (
            FakeGpu(driver=12080),
            "the NVIDIA driver is too old: it serves CUDA 12.8, and this onnxruntime is built for CUDA 13. Install a newer driver, or a "
            "release of onnxruntime-gpu for CUDA 12",
        ),
        (FakeGpu(names=()), "the NVIDIA driver finds no GPU (CUDA error 100)"),
        (FakeGpu(status=803), "the NVIDIA driver finds no GPU (CUDA error 803)"),
        (FakeGpu(lacking="libcublasLt.so.13"), LIBRARIES),
        (FakeGpu(lacking="libcudnn.so.9", cuda="12.8"), "pip install nvidia-cudnn-cu12, or"),
        (FakeGpu(lacking="libcurand.so.10", cuda="12.8"), "pip install nvidia-curand-cu12, or"),
        (FakeGpu(lacking="libcudart.so.13"), "pip install nvidia-cuda-runtime, or"),
        (
            FakeGpu(lacking="libstrange.so.1"),
            "needs libstrange.so.1, which is not here: install the package of your system",
        ),
    ],
    ids=["no driver", "old driver", "no GPU", "mismatch", "cuBLAS", "cuDNN, 12", "cuRAND, 12", "runtime", "other"],
)
def test_what_is_in_the_way_is_told_before_anything_is_loaded(
    machine: FakeGpu, message: str, pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = install(machine, monkeypatch)
    assert message in verify(pristine)
    assert gpu.done == []


def test_an_export_for_cuda_is_refused_for_the_same_reason(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(FakeGpu(lacking="libcublasLt.so.13"), monkeypatch)
    ran = run("export", pristine, "--format", "ort", "--provider", "cuda", "-o", tmp_path / "out")
    assert ran.code == 4 and LIBRARIES in ran.err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("driver", [13000, 13020, 14000])
def test_a_machine_with_all_of_it_is_not_refused(driver: int, monkeypatch: pytest.MonkeyPatch) -> None:
    install(FakeGpu(driver=driver), monkeypatch)
    assert cuda_diagnosis.obstacle() is None
    install(FakeGpu(driver=driver, cuda=""), monkeypatch)
    assert cuda_diagnosis.obstacle() is None


def test_a_gpu_that_there_is_not_is_named_with_those_there_are(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(FakeGpu(names=("NVIDIA H200", "NVIDIA L4")), monkeypatch)
    expected = "--device 2: expected the number of a GPU of this machine, of which there are 0 NVIDIA H200, 1 NVIDIA L4"
    assert expected in verify(pristine, "--device", 2)
    options = ("--format", "ort", "--provider", "cuda", "--device", 2)
    ran = run("export", pristine, *options, "-o", tmp_path / "out")
    assert ran.code == 4 and expected in ran.err and list(tmp_path.iterdir()) == []


def test_the_doctor_lists_the_gpus_by_number_or_what_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--provider cuda" not in run("doctor").out  # of a build for processors
    install(FakeGpu(names=("NVIDIA H200", "NVIDIA L4")), monkeypatch)
    assert "✓ run models with --provider cuda on GPU 0 NVIDIA H200, 1 NVIDIA L4" in run("doctor").out
    install(FakeGpu(driver=None), monkeypatch)
    assert "✗ run models with --provider cuda: no NVIDIA driver is installed here" in " ".join(
        run("doctor").out.split()
    )


def test_the_real_loader_finds_no_driver_where_there_is_none() -> None:
    try:
        found = cuda_diagnosis.Driver()
    except OSError:
        assert "no NVIDIA driver" in str(cuda_diagnosis.obstacle()) and cuda_diagnosis.name_of(0) is None
    else:
        assert found.version > 11000


# Meanwhile


def running(bundle: Path, monkeypatch: pytest.MonkeyPatch, machine: FakeGpu, device: int = 0) -> CudaSession:
    install(machine, monkeypatch)
    return CudaSession(bundle / "model.onnx", Loading("cuda", device=device, cuda_graph=True))


IMAGES = np.zeros((128, 3, 20, 28), np.float32)


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        (1, "(1.2 GiB of 80.0 are free): give a smaller --batch. Take another GPU with --device"),
        (
            2,
            "(1.2 GiB of 80.0 are free, and another process uses it): give a smaller --batch. End the other processes, or take",
        ),
        (4, "(1.2 GiB of 80.0 are free, and 3 other processes use it)"),
    ],
)
def test_too_little_memory_is_told_with_the_batch_and_with_who_else_has_some(
    processes: int, words: str, pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeGpu(fails={"record1": NO_MEMORY}, free_bytes=int(1.2 * 2**30), processes=processes)
    session = running(pristine, monkeypatch, machine)
    with pytest.raises(RuntimeMissingError) as error:
        session.run(IMAGES)
    assert f"GPU 0 has too little free memory for a batch of 128 {words}" in str(error.value)
    assert not session._kept and session._loaded is None  # its memory was given back
    assert session.run(IMAGES[:2]).shape == (2, 7)


@pytest.mark.parametrize(
    "error",
    [
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc((void**)&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h ; expr=cublasCreate(&cublas_handle_);",
    ],
)
def test_too_little_memory_for_the_weights_is_told_too(
    error: str, pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(FakeGpu(fails={"load": error}), monkeypatch)
    message = verify(pristine)
    assert "GPU 0 has too little free memory for this model" in message and "--precision fp16" in message


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("replay", ILLEGAL, "(CUDA error 700: an illegal memory access)"),
        (
            "replay",
            "cudaGraphLaunch failed: an illegal memory access was encountered",
            "(CUDA error 700: an illegal memory access)",
        ),
        ("copy in2", ILLEGAL.replace("700", "719"), "(CUDA error 719: a kernel failed)"),
        (
            "copy out2",
            ILLEGAL.replace("700", "214"),
            "(CUDA error 214: an error in the GPU's memory that ECC could not correct)",
        ),
    ],
)
def test_a_gpu_that_is_lost_in_the_middle_is_told_with_where_to_look(
    call: str, error: str, words: str, pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = running(pristine, monkeypatch, FakeGpu(fails={call: error}))
    session.run(IMAGES[:2])
    with pytest.raises(RuntimeMissingError) as raised:
        session.run(IMAGES[:2])
    assert f"GPU 0 failed while it ran the model {words}" in str(raised.value) and "Xid" in str(raised.value)


def test_verify_tells_it_without_a_traceback(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(FakeGpu(fails={"record1": ILLEGAL}), monkeypatch)
    assert "an illegal memory access" in verify(pristine)


def test_a_gpu_that_another_process_keeps_is_told(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = "CUDA failure 46: CUDA-capable device(s) is/are busy or unavailable ; GPU=1 ; hostname=h ; expr=cudaSetDevice(1);"
    install(FakeGpu(names=("a", "b"), fails={"load": busy}), monkeypatch)
    message = verify(pristine, "--device", 1)
    assert (
        "GPU 1 is busy or unavailable" in message and "another process may keep it" in message and "--device" in message
    )


@pytest.mark.parametrize(
    "error",
    [
        "Got invalid dimensions for input: input",
        "CUDA failure 1: invalid argument ; GPU=0 ; hostname=h ; expr=f();",
        "CUDNN failure 700: something of cuDNN's own ; GPU=0 ; hostname=h ; expr=f();",
    ],
)
def test_an_error_of_the_model_is_not_taken_for_one_of_the_gpu(
    error: str, pristine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = running(pristine, monkeypatch, FakeGpu(fails={"record": error}))
    with pytest.raises(BundleError, match="cannot run the model on an input of"):
        session.run(IMAGES[:2])
