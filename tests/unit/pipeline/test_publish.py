"""A bundle appears whole or not at all, and what was there before stays whole."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest

from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.contents import Artifact
from s2mlp_deploy.bundle.staging import staged
from s2mlp_deploy.cli import signals
from s2mlp_deploy.errors import CompilerError, OutputError, ParityError
from s2mlp_deploy.families.registry import read_spec
from s2mlp_deploy.formats.onnx import OnnxFile
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import ExportRequest, OutputOptions, Source
from s2mlp_deploy.schema.manifest import Manifest, parse_manifest
from s2mlp_deploy.schema.precision import FP32, PRECISIONS
from s2mlp_deploy.schema.report import Report
from s2mlp_deploy.schema.tolerance import Rule
from s2mlp_deploy.system import workdir

pytestmark = pytest.mark.slow  # publishes whole bundles

Mount = Callable[[str], Path]

IMPOSSIBLE = Rule(factor=1e-12, floor=2.0**-23, top1_agreement=1.0)
"""A tolerance that no float32 export keeps."""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with small.pt and its bundle, which no test changes."""
    directory = tmp_path_factory.mktemp("pristine")
    checkpoint = save_checkpoint(directory / "small.pt", small_spec())
    assert run("export", checkpoint, "-o", directory / "bundle").code == 0
    return directory


@pytest.fixture
def checkpoint(pristine: Path) -> Path:
    """A small checkpoint."""
    return pristine / "small.pt"


@pytest.fixture
def old(pristine: Path, tmp_path: Path) -> Path:
    """A bundle that is already there, told apart by its report."""
    bundle = Path(shutil.copytree(pristine / "bundle", tmp_path / "bundle"))
    (bundle / "report.json").write_text("old")
    return bundle


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a tmpfs with given options, and unmounts it in the end."""
    mounted = []

    def make(options: str) -> Path:
        place = tmp_path / f"mounted{len(mounted)}"
        place.mkdir()
        command = shutil.which("mount")
        if command is None:
            pytest.skip("there is no mount command here")
        done = subprocess.run([command, "-t", "tmpfs", "-o", options, "none", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", place], check=True)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below ``directory``, hidden ones included; directories end in a slash."""
    return {
        str(p.relative_to(directory)) + "/" * p.is_dir(): b"" if p.is_dir() else p.read_bytes()
        for p in directory.rglob("*")
    }


def manifest_of(pristine: Path, *files: str) -> Manifest:
    """A manifest that lists ``files``, for publishing them without an export."""
    path = pristine / "bundle" / "manifest.json"
    manifest = parse_manifest(path.read_bytes(), str(path), read_spec)
    return manifest.model_copy(update={"files": dict.fromkeys(files, "0" * 64)})


def publish(
    pristine: Path, destination: Path, *, replace: bool = False, meanwhile: Callable[[Path], None] = lambda _: None
) -> None:
    """Publish a bundle of one file that says ``new``; ``meanwhile`` happens while it is being made."""
    with staged(destination, replace=replace) as staging:
        (staging.directory / "model.onnx").write_text("new")
        meanwhile(staging.directory)
        staging.publish(manifest_of(pristine, "model.onnx"), Report())


def is_new(bundle: Path) -> bool:
    """Whether ``bundle`` is what :func:`publish` makes, and nothing else."""
    return (
        sorted(os.listdir(bundle)) == ["manifest.json", "model.onnx", "report.json"]
        and (bundle / "model.onnx").read_text() == "new"
    )


# Where a bundle may go


def test_a_bundle_is_not_replaced_without_force(checkpoint: Path, old: Path) -> None:
    before = contents(old.parent)
    ran = run("export", checkpoint, "-o", old)
    assert ran.code == 3 and f"{old} exists" in ran.err and "--force" in ran.err
    assert contents(old.parent) == before


def test_a_bundle_is_replaced_with_force_and_nothing_is_left_over(checkpoint: Path, old: Path) -> None:
    ran = run("export", checkpoint, "-o", old, "--force")
    assert ran.code == 0
    assert (old / "report.json").read_text() != "old"
    assert os.listdir(old.parent) == ["bundle"]
    assert run("verify", old).code == 0


def test_force_is_no_error_where_nothing_is_there(pristine: Path, tmp_path: Path) -> None:
    publish(pristine, tmp_path / "bundle", replace=True)
    assert is_new(tmp_path / "bundle")


def test_an_old_bundle_that_is_damaged_may_be_replaced(pristine: Path, old: Path) -> None:
    (old / "model.onnx").unlink()
    publish(pristine, old, replace=True)
    assert is_new(old)


def test_an_old_bundle_of_another_schema_version_may_be_replaced(pristine: Path, old: Path) -> None:
    path = old / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    publish(pristine, old, replace=True)
    assert is_new(old)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"notes.txt": "mine"},
        {"manifest.json": '{"name": "my web app", "icons": []}', "index.html": "mine"},
        {"manifest.json": "not JSON"},
        {"manifest.json": "[" * 100_000},
        {"manifest.json": "[]"},
    ],
    ids=["empty", "notes", "web app", "no JSON", "nested", "list"],
)
def test_force_does_not_replace_what_is_no_bundle(checkpoint: Path, tmp_path: Path, files: dict[str, str]) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    for name, text in files.items():
        (place / name).write_text(text)
    before = contents(tmp_path)
    ran = run("export", checkpoint, "-o", place, "--force")
    assert ran.code == 3 and "is not a bundle" in ran.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["ckpt.pt", "predictions/"])
def test_force_does_not_delete_what_the_user_put_into_a_bundle(checkpoint: Path, old: Path, name: str) -> None:
    if name.endswith("/"):
        (old / name).mkdir()
    else:
        (old / name).write_text("mine")
    before = contents(old.parent)
    ran = run("export", checkpoint, "-o", old, "--force")
    assert ran.code == 3 and "holds more than a bundle" in ran.err and name.rstrip("/") in ran.err
    assert contents(old.parent) == before


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
def test_a_file_is_never_replaced(checkpoint: Path, tmp_path: Path, force: list[str]) -> None:
    (tmp_path / "taken").write_text("mine")
    ran = run("export", checkpoint, "-o", tmp_path / "taken", *force)
    assert ran.code == 3 and "is not a directory" in ran.err
    assert contents(tmp_path) == {"taken": b"mine"}


@pytest.mark.parametrize("target", ["bundle", "nowhere"])
def test_a_link_is_never_replaced(checkpoint: Path, old: Path, target: str) -> None:
    link = old.parent / "link"
    link.symlink_to(target)
    before = contents(old)
    ran = run("export", checkpoint, "-o", link, "--force")
    assert ran.code == 3 and "is not a directory" in ran.err
    assert contents(old) == before and os.readlink(link) == target


def test_the_working_directory_is_never_replaced(checkpoint: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old.parent)
    monkeypatch.chdir(old)
    ran = run("export", checkpoint, "-o", ".", "--force")
    assert ran.code == 3
    assert contents(old.parent) == before


def test_missing_parents_are_made(pristine: Path, tmp_path: Path) -> None:
    publish(pristine, tmp_path / "a" / "b" / "bundle")
    assert is_new(tmp_path / "a" / "b" / "bundle")


def test_missing_parents_are_gone_again_where_nothing_was_published(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(RuntimeError), staged(tmp_path / "mine" / "a" / "b" / "bundle", replace=False):
        raise RuntimeError
    assert list(contents(tmp_path)) == ["mine/"]


def test_a_file_cannot_be_a_parent(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    ran = run("export", checkpoint, "-o", tmp_path / "file" / "bundle")
    assert ran.code == 3 and "choose another place with -o" in ran.err.lower()
    assert contents(tmp_path) == {"file": b"mine"}


NAMES = {
    "spaces": "my model, v 2",
    "scripts": "модель-模型-é",
    "marks": "[red]%s{0}$HOME'\"",
    "long": "n" * 200,
    "longest": "n" * 255,
    "dash": "-v",
    "dots": "...",
    "line": "a\nb",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
def test_any_name_that_a_directory_can_have_will_do(pristine: Path, tmp_path: Path, name: str) -> None:
    publish(pristine, tmp_path / name)
    publish(pristine, tmp_path / name, replace=True)
    assert is_new(tmp_path / name) and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["my model, v 2", "модель [red]-模型", "n" * 200])
def test_the_commands_take_and_show_such_names_unchanged(checkpoint: Path, tmp_path: Path, name: str) -> None:
    ran = run("export", checkpoint, "-o", tmp_path / name, "--json")
    assert ran.code == 0 and ran.json["exports"][0]["bundle"] == str(tmp_path / name)
    assert run("verify", tmp_path / name).code == 0
    again = run("export", checkpoint, "-o", tmp_path / name)
    assert again.code == 3 and name in again.err
    assert os.listdir(tmp_path) == [name]


def test_a_name_that_is_too_long_is_refused_before_any_work(checkpoint: Path, tmp_path: Path) -> None:
    ran = run("export", checkpoint, "-o", tmp_path / ("n" * 256))
    assert ran.code == 3
    (message,) = ran.err.splitlines()
    assert "File name too long" in message and "-o" in message
    assert os.listdir(tmp_path) == []


# Whole or not at all


def test_nothing_is_published_when_the_gate_fails(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRECISIONS, "fp32", replace(FP32, rule=IMPOSSIBLE))
    place = tmp_path / "new" / "bundle"
    ran = run("export", checkpoint, "-o", place)
    assert (ran.code, ran.out) == (1, "") and "nothing was published" in ran.err
    with pytest.raises(ParityError, match="relative L2"):
        deploy(ExportRequest(Source(checkpoint), output=OutputOptions(place)))
    assert os.listdir(tmp_path) == []


def test_the_old_bundle_stays_when_the_gate_fails(checkpoint: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRECISIONS, "fp32", replace(FP32, rule=IMPOSSIBLE))
    before = contents(old.parent)
    assert run("export", checkpoint, "-o", old, "--force").code == 1
    assert contents(old.parent) == before


def test_nothing_is_published_when_the_exporter_fails(
    checkpoint: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: OnnxFile, lowered: Lowered, destination: Path) -> Artifact:
        (destination / "model.onnx").write_text("half")
        raise ParityError("the compiler gave up")

    before = contents(old.parent)
    monkeypatch.setattr(OnnxFile, "export", fail)
    ran = run("export", checkpoint, "-o", old, "--force")
    assert (ran.code, ran.out) == (1, "") and "the compiler gave up" in ran.err
    assert contents(old.parent) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_an_interruption_leaves_the_old_bundle_and_nothing_else(
    pristine: Path, old: Path, error: type[BaseException]
) -> None:
    def stop(directory: Path) -> None:
        (directory / "model.onnx").write_text("half")
        raise error

    before = contents(old.parent)
    with pytest.raises(error):
        publish(pristine, old, replace=True, meanwhile=stop)
    assert contents(old.parent) == before


@pytest.mark.parametrize("replace", [False, True], ids=["plain", "force"])
def test_a_destination_that_appears_meanwhile_is_not_replaced(pristine: Path, tmp_path: Path, replace: bool) -> None:
    def appear(directory: Path) -> None:
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "mine.txt").write_text("mine")

    with pytest.raises(OutputError, match="exists"):
        publish(pristine, tmp_path / "bundle", replace=replace, meanwhile=appear)
    assert contents(tmp_path) == {"bundle/": b"", "bundle/mine.txt": b"mine"}


def test_a_file_that_the_manifest_does_not_list_is_not_published(pristine: Path, tmp_path: Path) -> None:
    def forget(directory: Path) -> None:
        (directory / "model.tmp").write_text("left over")

    with pytest.raises(OutputError, match=r"does not name.*model\.tmp"):
        publish(pristine, tmp_path / "bundle", meanwhile=forget)
    assert os.listdir(tmp_path) == []


# Directories of versions, and packages

DEEP = "model.mlpackage/Data/some.author/weights/weight.bin"


def publish_version(pristine: Path, destination: Path, *, replace: bool = False, also: str | None = None) -> None:
    """As :func:`publish`, with a file in the directory of a version and one in a package, too; and with one that no one asked for."""
    with staged(destination, replace=replace) as staging:
        for name in ("model.onnx", "1/model.plan", DEEP, *([also] if also else [])):
            (staging.directory / name).parent.mkdir(exist_ok=True, parents=True)
            (staging.directory / name).write_text("new")
        staging.publish(manifest_of(pristine, "model.onnx", "1/model.plan", DEEP), Report())


def test_a_version_is_published_and_replaced_with_the_rest(pristine: Path, tmp_path: Path) -> None:
    for again in (False, True):
        publish_version(pristine, tmp_path / "bundle", replace=again)
        names = ["1", "manifest.json", "model.mlpackage", "model.onnx", "report.json"]
        assert sorted(os.listdir(tmp_path / "bundle")) == names
        assert os.listdir(tmp_path / "bundle" / "1") == ["model.plan"]
        assert (tmp_path / "bundle" / DEEP).read_text() == "new"
    assert os.listdir(tmp_path) == ["bundle"]


@pytest.mark.parametrize(
    "also",
    [
        "1/scratch.tmp",
        "2/model.plan",
        "sub/model.plan",
        "1/sub/model.plan",
        "model.mlpackage/scratch.tmp",
        "model.mlpackage/Data/some.author/weights/deeper/x",
        "other.mlpackage/Manifest.json",
    ],
)
def test_what_the_manifest_does_not_list_is_not_published_wherever_it_lies(
    pristine: Path, tmp_path: Path, also: str
) -> None:
    with pytest.raises(OutputError, match="does not name") as caught:
        publish_version(pristine, tmp_path / "bundle", also=also)
    assert also.rsplit("/", 1)[0] in str(caught.value) and os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "1/mine.txt",
        "1/mine/",
        "1/mine/notes.txt",
        "2/",
        "2/model.plan",
        "01/model.plan",
        "model.plan/1",
        "1/model.plan/mine",
        "model.mlpackage/mine.txt",
        "model.mlpackage/Data/mine/",
        "model.mlpackage/Data/some.author/weights/mine/notes.txt",
    ],
)
def test_force_does_not_delete_what_the_user_put_beside_or_into_a_version(
    pristine: Path, tmp_path: Path, name: str
) -> None:
    publish_version(pristine, tmp_path / "bundle")
    place = tmp_path / "bundle" / name
    if name == "1/model.plan/mine":  # in the place of a file that is the bundle's
        (tmp_path / "bundle" / "1" / "model.plan").unlink()
    if name.endswith("/"):
        place.mkdir(parents=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="holds more than a bundle"):
        publish_version(pristine, tmp_path / "bundle", replace=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["1", "model.mlpackage", "model.mlpackage/Data/some.author"])
def test_force_does_not_follow_a_directory_that_leads_elsewhere(pristine: Path, tmp_path: Path, name: str) -> None:
    publish_version(pristine, tmp_path / "bundle")
    elsewhere = (tmp_path / "bundle" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "bundle" / name).symlink_to(elsewhere)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="holds more than a bundle"):
        publish_version(pristine, tmp_path / "bundle", replace=True)
    assert contents(tmp_path) == before


def test_a_version_follows_the_users_umask_too(pristine: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        publish_version(pristine, tmp_path / "bundle")
    finally:
        os.umask(before)
    modes = [
        (tmp_path / "bundle" / name).stat().st_mode & 0o777
        for name in ("", "1", "1/model.plan", "model.mlpackage/Data", DEEP)
    ]
    assert modes == [0o750, 0o750, 0o640, 0o750, 0o640]


def test_a_disk_that_does_not_keep_what_is_written_is_noticed(
    pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = contents(old.parent)
    monkeypatch.setattr("s2mlp_deploy.bundle.staging.os.fsync", fail)
    with pytest.raises(OutputError, match=r"Input/output error\. Nothing was published"):
        publish(pristine, old, replace=True)
    assert contents(old.parent) == before


def test_a_file_system_that_cannot_flush_directories_will_do(
    pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def refuse_directories(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(descriptor)

    monkeypatch.setattr("s2mlp_deploy.bundle.staging.os.fsync", refuse_directories)
    publish(pristine, old, replace=True)
    assert is_new(old)


# Replacing in one step, and in two where the system cannot


def test_replacing_exchanges_two_names_in_one_step(pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.uname().sysname != "Linux":
        pytest.skip("only Linux has renameat2")

    def refuse(*_: object) -> None:
        raise AssertionError("renamed in more than one step")

    monkeypatch.setattr(Path, "rename", refuse)
    publish(pristine, old, replace=True)
    assert is_new(old) and os.listdir(old.parent) == ["bundle"]


@pytest.fixture(params=["no such function", "refused"])
def without_exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system, or a file system, that cannot exchange two names."""
    library = SimpleNamespace(renameat2=lambda *_: -1) if request.param == "refused" else SimpleNamespace()
    monkeypatch.setattr("s2mlp_deploy.bundle.staging.ctypes", SimpleNamespace(CDLL=lambda *_, **__: library))


@pytest.mark.usefixtures("without_exchange")
def test_replacing_works_in_two_steps_too(pristine: Path, old: Path) -> None:
    publish(pristine, old, replace=True)
    assert is_new(old) and os.listdir(old.parent) == ["bundle"]


@pytest.mark.usefixtures("without_exchange")
@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), KeyboardInterrupt()], ids=repr)
def test_the_old_bundle_comes_back_when_the_second_step_fails(
    pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    before = contents(old.parent)
    rename = Path.rename
    failures = [error]

    def fail_once(source: Path, target: Path) -> Path:
        if target == old and failures:
            raise failures.pop()
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        publish(pristine, old, replace=True)
    assert not failures and contents(old.parent) == before


@pytest.mark.usefixtures("without_exchange")
def test_the_old_bundle_stays_when_the_first_step_fails(
    pristine: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(old.parent)

    def fail(source: Path, target: Path) -> Path:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match=r"Permission denied\. Nothing was published"):
        publish(pristine, old, replace=True)
    assert contents(old.parent) == before


# What a bundle looks like to others


@pytest.mark.parametrize(
    ("mask", "file", "directory"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0o077, 0o600, 0o700)]
)
def test_modes_follow_the_users_umask(checkpoint: Path, tmp_path: Path, mask: int, file: int, directory: int) -> None:
    before = os.umask(mask)
    try:
        assert run("export", checkpoint, "-o", tmp_path / "bundle").code == 0
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == directory
    assert {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "bundle").iterdir()} == dict.fromkeys(
        ("model.onnx", "manifest.json", "report.json", "golden.safetensors"), file
    )


# Full and read-only disks


def space_for(bundle: Path, *names: str) -> int:
    """The bytes that the files ``names`` take on a tmpfs, which keeps whole pages."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(-(-(bundle / name).stat().st_size // page) * page for name in names)


@pytest.mark.parametrize(
    ("written", "halfway"),
    [((), "model.onnx"), (("model.onnx",), "golden.safetensors"), (("model.onnx", "golden.safetensors"), None)],
    ids=["in the model", "in the golden tensors", "in the manifest"],
)
def test_a_full_disk_is_reported_and_left_as_it_was(
    pristine: Path, checkpoint: Path, mount: Mount, written: tuple[str, ...], halfway: str | None
) -> None:
    size = space_for(pristine / "bundle", *written)
    size += space_for(pristine / "bundle", halfway) // 2 if halfway else 0
    disk = mount(f"size={size}")
    ran = run("export", checkpoint, "-o", disk / "bundle")
    assert ran.code == 3 and ran.out == ""
    message = ran.err.splitlines()[-1]
    assert message.startswith("error: ") and "No space left on device" in message and "another place" in message
    assert contents(disk) == {}


def test_a_full_disk_keeps_the_old_bundle_whole(checkpoint: Path, pristine: Path, mount: Mount) -> None:
    size = space_for(pristine / "bundle", *os.listdir(pristine / "bundle"))
    disk = mount(f"size={size + 4 * os.sysconf('SC_PAGE_SIZE')}")
    shutil.copytree(pristine / "bundle", disk / "bundle")
    before = contents(disk)
    ran = run("export", checkpoint, "-o", disk / "bundle", "--force")
    assert ran.code == 3 and "No space left on device" in ran.err
    assert contents(disk) == before
    assert run("verify", disk / "bundle").code == 0


def test_a_read_only_place_is_refused(checkpoint: Path, mount: Mount) -> None:
    disk = mount("ro")
    ran = run("export", checkpoint, "-o", disk / "new" / "bundle")
    assert ran.code == 3 and "Read-only file system" in ran.err and "another place with -o" in ran.err


def test_a_bundle_on_a_read_only_disk_can_be_verified(pristine: Path, mount: Mount) -> None:
    disk = mount("size=1m")
    shutil.copytree(pristine / "bundle", disk / "bundle")
    done = subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be made read-only here: {done.stderr.strip()}")
    assert run("verify", disk / "bundle", "--per-block").code == 0


def test_a_lock_that_is_refused_once_lets_nobody_sweep_the_directory_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = workdir._lock
    with monkeypatch.context() as patched:
        patched.setattr(workdir, "_lock", lambda *_, **__: False)
        first = workdir.beside(tmp_path / "bundle")
        directory = first.__enter__()
    assert workdir._lock is lock
    with workdir.beside(tmp_path / "bundle"):
        assert directory.is_dir()
    first.__exit__(None, None, None)
    assert os.listdir(tmp_path) == []


def test_a_removal_that_is_interrupted_is_finished_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    working = workdir.beside(tmp_path / "a" / "b" / "bundle")
    (working.__enter__() / "file").write_text("half")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            working.__exit__(None, None, None)
    assert contents(tmp_path) != {}
    workdir.clear()
    assert contents(tmp_path) == {}


def test_a_directory_that_vanished_is_the_reason_whatever_a_runtime_says(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()

    def vanish() -> None:
        with staged(tmp_path / "place" / "bundle", replace=False):
            shutil.rmtree(tmp_path / "place")
            raise CompilerError("cannot open the model")

    with pytest.raises(OutputError, match="place was removed while bundle was being written"):
        vanish()


def test_a_checkpoint_with_the_longest_name_is_compiled(checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copyfile(checkpoint, tmp_path / ("n" * 252 + ".pt"))
    ran = run("export", source, "--format", "ort", "-o", tmp_path / "bundle")
    assert ran.code == 0, ran.err


def test_an_interruption_that_became_a_plain_exit_is_told() -> None:
    """Typer makes one of those that come outside of the command itself."""
    code = """
        import os, signal, sys, time
        from s2mlp_deploy.cli import signals
        with signals.prompt():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            except KeyboardInterrupt:
                sys.exit(130)
    """
    ended = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", f"error: {signals.MESSAGE}\n")
