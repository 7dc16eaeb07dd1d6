"""A checkpoint is data: nothing in it runs, and what it claims costs neither time nor memory.

Checkpoints are read without torch.load, by a reader that only puts numbers, texts, containers and tensors together. Names of
functions and classes in a file are looked up in a fixed list and never imported; anything else is refused, with the
names. What a file claims is compared with what it has before anything is read: the size that an archive unpacks to, the bytes
of every tensor, the reach of its strides, checksums, overlaps, and how much is described in all. A file may stand for at most
512 MiB more than its own size, through compression or shared values.

Every refusal is one paragraph with exit code 3, within 10 seconds of processor time and 2 GiB of addresses above the file's size
(enforced by the operating system while these tests run), and leaves nothing behind. A checkpoint whose values are damaged
in a way that gives other finite numbers is noticed by the checksums of torch's zip format; the older format and safetensors
have none.

Not covered: faults in the Python interpreter and in the safetensors package themselves, and files that change while they are
read.
"""

from __future__ import annotations

import contextlib
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from helpers import processes
from helpers.reliability import hostile_code, hostile_files
from helpers.reliability.confined import Used, confine
from helpers.reliability.hostile_files import GIB, KEY, Write, weights
from helpers.reliability.record import Trials
from helpers.support import random_model, run, save_checkpoint, small_spec
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.errors import Error

SECONDS = 10
BEYOND = 2 * GIB

COMMANDS = ("inspect", "export")


def command(name: str, path: Path, place: Path, *options: object) -> tuple[int, str, Used]:
    """(exit code, what it said, what it used) of a command that has to keep to the limits."""
    arguments = [path, *(["-o", place / "out" / "bundle"] if name == "export" else []), *options]
    limits = partial(confine, path.stat().st_size + BEYOND, SECONDS, place / "used")
    running = processes.start(name, place / "log", *arguments, before=limits)
    code = running.wait()
    used = Used.read(place / "used") if code >= 0 else Used(0, 0)
    return code, running.text, used


def assert_refused(code: int, said: str, place: Path) -> None:
    assert code == 3, (code, said[-2000:])
    *progress, message = said.splitlines()
    assert all(line.endswith(" …") for line in progress), said[:2000]
    assert message.startswith("error: ") and "Traceback" not in message and len(message) < 3000, message[:5000]
    assert not list((place / "out").iterdir())


@pytest.mark.parametrize("kind", sorted(hostile_files.KINDS))
def test_hostile_files_are_refused(kind: str, tmp_path: Path, trials: Trials) -> None:
    """Zip bombs, lying sizes, overlaps, tensors of 2^40 and 2^80 values in a file of a few kilobytes, nesting a million deep, a
    million keys, colliding hashes, heads of 100 GB: `s2mlp-inspect` and `s2mlp-export` on each, in a process with limited memory."""
    (tmp_path / "out").mkdir()
    path = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pt")
    for what, write in list(hostile_files.KINDS[kind]().items())[:: trials.times(10, 1)]:
        write(path)
        for name in COMMANDS if trials.thorough else COMMANDS[:1]:
            code, said, used = command(name, path, tmp_path)
            assert_refused(code, said, tmp_path)
            beyond = max(0, used.bytes - path.stat().st_size)
            trials.most("longest", used.seconds, f"{used.seconds:.1f} s ({what})")
            trials.most("most memory above the file's size", beyond, f"{beyond >> 20} MiB ({what})")
        path.unlink()
        trials.tried("hostile files")


def test_odd_and_healthy_files_are_read(tmp_path: Path, trials: Trials) -> None:
    """Nesting a million deep in options, lists that hold themselves, values packed anew or unaligned: healthy, and read."""
    for what, write in list(hostile_files.harmless().items())[:: trials.times(4, 1)]:
        write(tmp_path / "model.pt")
        code, said, _ = command("inspect", tmp_path / "model.pt", tmp_path)
        assert code == 0, (what, said[-2000:])
        found = load_checkpoint(tmp_path / "model.pt").weights
        assert all(np.array_equal(found[key].numpy(), value) for key, value in weights().items()), what
        trials.tried("files")


FORMATS: dict[str, Callable[[dict[str, torch.Tensor], Path], object]] = {
    "model.pt": torch.save,
    "older.pt": partial(torch.save, _use_new_zipfile_serialization=False),
    "model.safetensors": safetensors.torch.save_file,
}


def test_values_that_share_and_stride_are_those_of_torch(tmp_path: Path, trials: Trials) -> None:
    """Parameters that are views of one buffer, of one another, transposed, strided, interleaved or negated, in both formats of
    torch, in float16, float32 and float64."""
    for what, change in hostile_files.views().items():
        for dtype in (torch.float16, torch.float32, torch.float64):
            state = {key: value.to(dtype) for key, value in random_model(hostile_files.SPEC).state_dict().items()}
            change(state)
            for name in ("model.pt", "older.pt"):
                FORMATS[name](state, tmp_path / name)
                found = load_checkpoint(tmp_path / name).weights
                for key, value in state.items():
                    expected = value.resolve_neg().to(found[key].dtype)
                    assert torch.equal(found[key], expected), (what, name, key)
                trials.tried("checkpoints")


BITS = {
    torch.float16: (torch.int16, [0x7C00, 0xFC00, 0x7C01, 0x7E00, 0x7FFF, 0xFC01, 0xFE00, 0xFFFF]),
    torch.bfloat16: (torch.int16, [0x7F80, 0xFF80, 0x7F81, 0x7FC0, 0x7FFF, 0xFF81, 0xFFC0, 0xFFFF]),
    torch.float32: (
        torch.int32,
        [0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFC12345, 0xFFFFFFFF],
    ),
    torch.float64: (
        torch.int64,
        [
            0x7FF << 52,
            0xFFF << 52,
            (0x7FF << 52) + 1,
            0x7FF8 << 48,
            2**63 - 1,
            (0xFFF << 52) + 1,
            2**64 - 1,
            struct.unpack("<Q", struct.pack("<d", 3.5e38))[0],
        ],
    ),
}
"""Infinities, and NaN quiet and signalling, of both signs, with payloads; and one that only float64 holds."""


def test_numbers_that_are_none_are_refused(tmp_path: Path, trials: Trials) -> None:
    """Infinities and every kind of NaN (quiet, signalling, either sign, with payloads), one in one weight, in each type and format."""
    for dtype, (bits, patterns) in BITS.items():
        width = 8 * bits.itemsize
        for number, pattern in enumerate(patterns):
            each = list(FORMATS.items())
            for name, save in each if trials.thorough else [each[number % len(each)]]:
                state = {key: value.to(dtype) for key, value in random_model(hostile_files.SPEC).state_dict().items()}
                state[KEY].view(bits)[3, 5] = pattern - (pattern >> (width - 1) << width)
                save(state, tmp_path / name)
                ran = run("inspect", tmp_path / name)
                assert (ran.code, ran.out) == (3, "") and f"{KEY} has " in ran.err, (dtype, hex(pattern), name, ran.err)
                trials.tried("checkpoints")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_in_a_file_runs(tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every instruction of pickles that imports, calls or makes something, with what leaves a trace, in every place of both
    formats of torch, bare, in archives in archives, behind other content: nothing is left, and the file is refused. The same
    pickles do leave it where they are trusted."""
    monkeypatch.syspath_prepend(tmp_path)
    hostile_code.prepare(tmp_path)
    left, path = tmp_path / "left", tmp_path / "model.pt"
    places = list(hostile_code.places().items())
    for number, (what, payload) in enumerate(hostile_code.payloads(left).items()):
        for where, write in places if trials.thorough else places[number % 3 :: 3]:
            write(path, payload)
            for name in COMMANDS if trials.thorough else COMMANDS[:1]:
                ran = run(name, path, *(["-o", tmp_path / "bundle"] if name == "export" else []))
                assert not hostile_code.left_by(left), (what, where)
                assert "leaves_when_imported" not in sys.modules, (what, where)
                assert (ran.code, ran.out) == (3, ""), (what, where, ran.err)
                assert "Traceback" not in ran.err and not (tmp_path / "bundle").exists()
            trials.tried("files")
        with contextlib.suppress(Exception):
            hostile_code.trusted(payload)
        assert _eventually(lambda: hostile_code.left_by(left)), what
        sys.modules.pop("leaves_when_imported", None)
        trials.tried("pickles that ran where they are trusted")


def _eventually(found: Callable[[], bool]) -> bool:
    """Whether ``found()`` within ten minutes: a program that was started may take its time."""
    end = time.monotonic() + 600
    while not (there := found()) and time.monotonic() < end:
        time.sleep(0.01)
    return there


def npy(shape: str, descr: str = "<f4", values: bytes = b"") -> bytes:
    """A .npy file whose head says so."""
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + values


def others() -> dict[str, tuple[str, str, Write]]:
    """Hostile files of other kinds: the option that takes each, its name, and how it is written."""

    def npz(*entries: hostile_files.Entry) -> Write:
        return lambda path: hostile_files.archive(path, entries)

    def content(data: bytes | str) -> Write:
        return lambda path: path.write_bytes(data if isinstance(data, bytes) else data.encode())

    image, bomb = "(64, 3, 20, 28)", hostile_files.zeros(3 * GIB)
    large = partial(hostile_files._hole, size=GIB, start=b"a")
    tall = npy(f"({3 * GIB // 6720}, 3, 20, 28)")
    return {
        "labels of a gigabyte": ("--labels", "labels.txt", large),
        "labels of a gigabyte in JSON": ("--labels", "labels.json", large),
        "labels without an end": ("--labels", "zero", lambda path: path.symlink_to("/dev/zero")),
        "labels 10^5 deep": ("--labels", "labels.json", content("[" * 10**5)),
        "a label's number of 10^5 digits": ("--labels", "labels.json", content('{"' + "9" * 10**5 + '": "a"}')),
        "labels that claim number 10^5000": ("--labels", "labels.json", content('{"a": 1' + "0" * 5000 + "}")),
        "a million labels": ("--labels", "labels.txt", content("a\n" * 10**6)),
        "a layout of a gigabyte": ("--layout", "layout.toml", large),
        "a layout 10^4 deep": ("--layout", "layout.toml", content("name = " + "[" * 10**4)),
        "a layout's table 10^4 deep": ("--layout", "layout.toml", content("[" + "a." * 10**4 + "a]\n")),
        "a layout's number of 10^4 digits": ("--layout", "layout.toml", content("name = " + "9" * 10**4)),
        "a layout with an infinite epsilon": (
            "--layout",
            "layout.toml",
            content('name = "x"\nnorm_epsilon = inf\n[keys]\n"head.fc" = "fc"\n'),
        ),
        "a layout with a padding of 10^18": (
            "--layout",
            "layout.toml",
            content(f'name = "x"\npatch.padding = {10**18}\n[keys]\n"head.fc" = "fc"\n'),
        ),
        "a layout of block 10^5000": (
            "--layout",
            "layout.toml",
            content('name = "x"\n[keys]\n"stages.0.blocks.' + "9" * 5000 + '.fc1" = "a"\n'),
        ),
        "inputs that claim 2^40 images": ("--calibration", "inputs.npy", content(npy(f"({2**40}, 3, 20, 28)"))),
        "inputs that claim 2^80 numbers": ("--calibration", "inputs.npy", content(npy(f"({2**40}, {2**40})"))),
        "inputs of no size, 2^40 times": ("--calibration", "inputs.npy", content(npy(f"({2**40},)", "|V0"))),
        "inputs that are objects": ("--calibration", "inputs.npy", content(npy(image, "|O"))),
        "inputs with a shape 10^4 deep": ("--calibration", "inputs.npy", content(npy("(" * 10**4))),
        "inputs that unpack to 3 GiB": (
            "--calibration",
            "inputs.npz",
            npz(hostile_files.Entry("input.npy", bomb, 3 * GIB, 8)),
        ),
        "inputs that unpack to 3 GiB, and claim 100 bytes": (
            "--calibration",
            "inputs.npz",
            npz(hostile_files.Entry("input.npy", bomb, 100, 8)),
        ),
        "inputs that claim 3 GiB in an archive": (
            "--calibration",
            "inputs.npz",
            npz(hostile_files.Entry("input.npy", tall, 3 * GIB, 0)),
        ),
        "inputs that claim more than their entry": (
            "--calibration",
            "inputs.npz",
            npz(hostile_files.Entry("input.npy", tall)),
        ),
        "inputs twice": (
            "--calibration",
            "inputs.npz",
            npz(*[hostile_files.Entry("input.npy", npy("(1,)", values=bytes(4)))] * 2),
        ),
        "a recording with a head of 100 GB": (
            "--reference",
            "recorded.safetensors",
            content(struct.pack("<Q", 100 * GIB) + b"{}"),
        ),
        "a recording that names its input twice": (
            "--reference",
            "recorded.safetensors",
            content(
                struct.pack("<Q", 124)
                + b'{"input":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"input":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(
                    124
                )
                + bytes(4)
            ),
        ),
    }


def test_other_hostile_files_are_refused(tmp_path: Path, trials: Trials) -> None:
    """Labels, layouts, calibration inputs and recordings that claim, nest or unpack to more than they should: `s2mlp-export` with
    each beside a healthy checkpoint, in a process with limited memory."""
    (tmp_path / "out").mkdir()
    source = save_checkpoint(tmp_path / "healthy.pt", hostile_files.SPEC)
    for what, (option, file, write) in list(others().items())[:: trials.times(6, 1)]:
        path = tmp_path / file
        write(path)
        precision = ["--precision", "int8"] if option == "--calibration" else []
        code, said, _ = command("export", source, tmp_path, option, path, *precision)
        assert_refused(code, said, tmp_path)
        path.unlink()
        trials.tried("files")
        assert str(path) in said, (what, said)


def test_no_flipped_bit_changes_a_weight(tmp_path: Path, trials: Trials) -> None:
    """Single bits of a checkpoint in torch's zip format, flipped one after another: it is refused, or read with the weights that it
    had. (Some bits mean nothing: dates, padding, and settings of the training script that are not used.)"""
    path = save_checkpoint(tmp_path / "model.pt", small_spec(channels=4, depth=1, expansion=1, classes=2))
    data, before = path.read_bytes(), load_checkpoint(path)
    bits = range(0, 8 * len(data), trials.times(8 * len(data) // 400, 1))
    unchanged = 0
    for number in bits:
        changed = bytearray(data)
        changed[number // 8] ^= 1 << number % 8
        path.write_bytes(changed)
        try:
            after = load_checkpoint(path)
        except Error:
            continue
        unchanged += 1
        assert (after.spec, after.recorded) == (before.spec, before.recorded), number
        assert all(torch.equal(after.weights[key], value) for key, value in before.weights.items()), number
    trials.tried("bits", len(bits))
    trials.ended("refused", len(bits) - unchanged)
