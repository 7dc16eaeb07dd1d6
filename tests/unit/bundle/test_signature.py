"""Signatures: every file is covered, nothing of a bundle that another publisher signed is loaded, and keys that cannot sign are refused early."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("model_signing", reason="no model-signing: pip install '.[sign]'")

from click.testing import CliRunner
from model_signing import hashing, signing
from model_signing._cli import main as model_signing_cli

import s2mlp_deploy
from helpers import signing_keys
from helpers.signing_keys import PASSWORD, authority, issue
from helpers.support import ROOT, run
from s2mlp_deploy import SigningKey, TrustedKey
from s2mlp_deploy.bundle import signature
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.bundle.signature import SIGNATURE
from s2mlp_deploy.errors import KeyFileError, SignatureError, UsageError
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.hashing import sha256


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys, and certificates of two authorities."""
    place = tmp_path_factory.mktemp("keys")
    signing_keys.write_keys(place)
    ours, theirs = authority(place, "ours"), authority(place, "theirs")
    issue(ours, place, "vision")
    issue(ours, place, "past", days=(-400, -30))
    issue(ours, place, "future", days=(30, 60))
    issue(ours, place, "idle", signs=False)
    issue(theirs, place, "stranger")
    issue(authority(place, "former", days=(-900, -10)), place, "heir", days=(-50, 300))
    (place / "heirs.crt").write_bytes((place / "heir.crt").read_bytes() + (place / "former.crt").read_bytes())
    return place


def sign(bundle: Path, key: Path, certificate: Path | None = None) -> Path:
    signature.sign(bundle, SigningKey(key, certificate), bundle.name)
    return bundle


@pytest.fixture
def signed(bundle: Path, keys: Path) -> Path:
    """A bundle that the key ``release`` signed."""
    return sign(bundle, keys / "release.key")


def with_certificate(bundle: Path, keys: Path, name: str) -> Path:
    return sign(bundle, keys / f"{name}.key", keys / f"{name}.crt")


# What is right


def test_the_publisher_is_named_and_a_bundle_may_be_renamed_and_linked_to(
    signed: Path, keys: Path, tmp_path: Path
) -> None:
    moved = signed.rename(tmp_path / "elsewhere")
    (tmp_path / "current").symlink_to(moved)
    for place in (moved, tmp_path / "current"):
        found = read_bundle(place, TrustedKey(keys / "release.pub")).signature
        assert str(found) == f"valid, by the key in {keys / 'release.pub'}"


def test_the_signature_covers_every_file_and_is_called_as_the_bundle(signed: Path) -> None:
    said = statement(signed)
    assert said["subject"][0]["name"] == "bundle"
    files = {path.relative_to(signed).as_posix() for path in signed.rglob("*") if path.is_file()}
    hashes = {r["name"]: r["digest"] for r in said["predicate"]["resources"]}
    assert hashes == {name: sha256(signed / name) for name in files - {SIGNATURE}}
    assert {"manifest.json", "report.json", "golden.safetensors", "model.onnx"} == hashes.keys()


def statement(bundle: Path) -> Any:
    content = json.loads((bundle / SIGNATURE).read_text("utf-8"))
    return json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))


def test_signing_changes_no_other_byte(pristine: Path, signed: Path) -> None:
    assert {p.name for p in signed.iterdir()} - {p.name for p in pristine.iterdir()} == {SIGNATURE}
    assert all((signed / p.name).read_bytes() == p.read_bytes() for p in pristine.iterdir())


def test_without_a_key_a_signature_is_not_believed(signed: Path, pristine: Path) -> None:
    assert str(read_bundle(signed).signature) == "signed, not checked"
    assert str(read_bundle(pristine).signature) == "unsigned"
    (signed / SIGNATURE).write_text("junk")
    assert str(read_bundle(signed).signature) == "signed, not checked"


@pytest.mark.parametrize("name", ["p384", "locked"])
def test_other_curves_and_encrypted_keys_sign(bundle: Path, keys: Path, name: str) -> None:
    password = PASSWORD if name == "locked" else None
    signature.sign(bundle, SigningKey(keys / f"{name}.key", password=password), "bundle")
    assert signature.check(bundle, TrustedKey(keys / f"{name}.pub")).state == "valid"


def test_a_certificate_is_followed_to_its_authority(bundle: Path, keys: Path) -> None:
    with_certificate(bundle, keys, "vision")
    found = signature.check(bundle, TrustedKey(certificate=keys / "ours.crt"))
    assert found.by == f"CN=vision, trusted by the authority in {keys / 'ours.crt'}"


def test_files_of_git_and_of_hubs_beside_it_are_left_out(signed: Path, keys: Path) -> None:
    (signed / ".gitattributes").write_text("*.onnx filter=lfs\n")
    (signed / ".git").mkdir()
    (signed / ".git" / "config").write_text("[core]\n")
    (signed / ".cache" / "huggingface").mkdir(parents=True)
    (signed / ".cache" / "huggingface" / "CACHEDIR.TAG").write_text("x")
    assert signature.check(signed, TrustedKey(keys / "release.pub")).state == "valid"


def test_the_programs_of_model_signing_agree(bundle: Path, signed: Path, keys: Path, pristine: Path) -> None:
    def call(*arguments: object) -> Any:
        return CliRunner().invoke(model_signing_cli, [str(a) for a in arguments])

    place = signed / SIGNATURE
    checked = call("verify", "key", signed, "--signature", place, "--public_key", keys / "release.pub")
    assert checked.exit_code == 0, checked.output
    place.unlink()
    made = call("sign", "key", signed, "--signature", place, "--private_key", keys / "other.key")
    assert made.exit_code == 0, made.output
    assert signature.check(signed, TrustedKey(keys / "other.pub")).state == "valid"
    (signed / ".cache").write_text("x")
    with pytest.raises(SignatureError, match=r"\(added: '\.cache'\)"):
        signature.check(signed, TrustedKey(keys / "other.pub"))
    place.unlink()
    call(
        "sign",
        "key",
        signed,
        "--signature",
        place,
        "--private_key",
        keys / "other.key",
        "--ignore-paths",
        signed / ".cache",
    )
    assert signature.check(signed, TrustedKey(keys / "other.pub")).state == "valid"


# What is wrong


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_model(bundle: Path) -> None:
    """Change the model, and its hash in the manifest: the bundle alone is consistent."""
    flip(bundle / "model.onnx")
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    manifest["files"]["model.onnx"] = sha256(bundle / "model.onnx")
    (bundle / "manifest.json").write_text(json.dumps(manifest, indent=2))
    read_bundle(bundle)


def link_model(bundle: Path) -> None:
    outside = (bundle / "model.onnx").rename(bundle.parent / "model.onnx")
    (bundle / "model.onnx").symlink_to(outside)


def link_signature(bundle: Path) -> None:
    outside = (bundle / SIGNATURE).rename(bundle.parent / SIGNATURE)
    (bundle / SIGNATURE).symlink_to(outside)


def edit(**change: Any) -> Callable[[Path], None]:
    """Change the signature's JSON."""

    def apply(bundle: Path) -> None:
        content = json.loads((bundle / SIGNATURE).read_text("utf-8"))
        (bundle / SIGNATURE).write_text(json.dumps({**content, **change}))

    return apply


def edit_payload(bundle: Path) -> None:
    said = statement(bundle)
    said["predicate"]["resources"] = said["predicate"]["resources"][:1]
    content = json.loads((bundle / SIGNATURE).read_text("utf-8"))
    content["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
    (bundle / SIGNATURE).write_text(json.dumps(content))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file added": (lambda b: (b / "extra.so").write_bytes(b"x"), "added: 'extra.so'"),
    "a file added in a folder": (lambda b: ((b / "1").mkdir(), (b / "1" / "x").write_text("x")), "added: '1/x'"),
    "a hidden file added": (lambda b: (b / ".hidden").write_text("x"), "added: '.hidden'"),
    "the model and its hash changed": (change_model, "changed: 'manifest.json', 'model.onnx'"),
    "the report changed": (lambda b: flip(b / "report.json"), "changed: 'report.json')"),
    "the report removed": (lambda b: (b / "report.json").unlink(), "(missing: 'report.json')"),
    "the manifest no longer JSON": (lambda b: (b / "manifest.json").write_text("{"), "changed: 'manifest.json'"),
    "the model a link": (link_model, "model.onnx' is not a plain file"),
    "a folder that is a link": (lambda b: (b / "1").symlink_to(b.parent), "1' is not a plain file"),
    "a pipe": (lambda b: os.mkfifo(b / "pipe"), "pipe' is not a plain file"),
    "a link that leads nowhere": (lambda b: (b / ".git").symlink_to("nowhere"), "is not a plain file"),
    "no signature": (lambda b: (b / SIGNATURE).unlink(), "is not signed, and a key was given"),
    "the signature a link": (link_signature, "is not a signature (it is a link)"),
    "the signature a folder": (lambda b: ((b / SIGNATURE).unlink(), (b / SIGNATURE).mkdir()), "is not a signature"),
    "the signature a pipe": (lambda b: ((b / SIGNATURE).unlink(), os.mkfifo(b / SIGNATURE)), "is not a signature"),
    "not JSON": (lambda b: (b / SIGNATURE).write_text("junk"), "is not a signature"),
    "not text": (lambda b: (b / SIGNATURE).write_bytes(b"\xff\xfe\x00"), "is not a signature"),
    "a list": (lambda b: (b / SIGNATURE).write_text("[]"), "is not a signature"),
    "nested deeply": (lambda b: (b / SIGNATURE).write_text("[" * 200_000), "is not a signature"),
    "endless": (lambda b: (b / SIGNATURE).write_bytes(b" " * (17 << 20)), "is not a signature"),
    "no material": (edit(verificationMaterial=None), "is not a signature"),
    "empty material": (edit(verificationMaterial={}), "is not by the key in"),
    "no envelope": (edit(dsseEnvelope=None), "is not by the key in"),
    "no signatures": (
        edit(dsseEnvelope={"payload": "", "payloadType": "application/vnd.in-toto+json", "signatures": []}),
        "is not by the key in",
    ),
    "the statement changed": (edit_payload, "is not by the key in"),
    "by Sigstore": (edit(verificationMaterial={"certificate": {"rawBytes": ""}}), "was signed by Sigstore"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_changed_after_signing_is_refused_before_it_is_read(
    signed: Path, keys: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, words = DAMAGES[damage]
    apply(signed)
    from s2mlp_deploy.bundle import read

    monkeypatch.setattr(read, "parse_manifest", lambda *_: pytest.fail("the manifest was read"))
    with pytest.raises(SignatureError) as caught:
        read_bundle(signed, TrustedKey(keys / "release.pub"))
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_the_signature_of_another_bundle_is_refused(signed: Path, pristine: Path, keys: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(pristine, tmp_path / "other"))
    flip(other / "report.json")
    sign(other, keys / "release.key")
    shutil.copy(other / SIGNATURE, signed / SIGNATURE)
    with pytest.raises(SignatureError, match=r"changed: 'report\.json'"):
        read_bundle(signed, TrustedKey(keys / "release.pub"))


def test_another_publisher_is_refused_whatever_key_the_signature_names(
    bundle: Path, keys: Path, tmp_path: Path
) -> None:
    trusted = TrustedKey(keys / "release.pub")
    right = json.loads((sign(bundle, keys / "release.key") / SIGNATURE).read_text("utf-8"))
    (bundle / SIGNATURE).unlink()
    sign(bundle, keys / "other.key")
    with pytest.raises(SignatureError, match=r"is not by the key in .*Key mismatch"):
        read_bundle(bundle, trusted)
    edit(verificationMaterial=right["verificationMaterial"])(bundle)
    with pytest.raises(SignatureError, match="is not by the key in"):
        read_bundle(bundle, trusted)
    edit(verificationMaterial={"publicKey": {}})(bundle)
    with pytest.raises(SignatureError, match="is not by the key in"):
        read_bundle(bundle, trusted)


def test_a_signature_that_leaves_files_out_is_refused_even_by_the_right_key(bundle: Path, keys: Path) -> None:
    config = signing.Config().use_elliptic_key_signer(private_key=keys / "release.key")
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE, "model.onnx"]))
    config.sign(bundle, bundle / SIGNATURE)
    with pytest.raises(SignatureError, match=r"leaves out 'model\.onnx'"):
        read_bundle(bundle, TrustedKey(keys / "release.pub"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("past", "CN=past, which holds from .* to .*, and this machine's clock shows"),
        ("future", "CN=future, which holds from .* and this machine's clock shows .*: set the clock"),
        ("stranger", "is not by the authority in"),
    ],
)
def test_a_certificate_must_hold_today_and_be_by_the_authority(bundle: Path, keys: Path, name: str, words: str) -> None:
    with_certificate(bundle, keys, name)
    with pytest.raises(SignatureError, match=words):
        read_bundle(bundle, TrustedKey(certificate=keys / "ours.crt"))


def test_an_authority_in_the_signature_must_hold_today(bundle: Path, keys: Path) -> None:
    """On the day on which it issued the signer's certificate it did, and that is the day that model-signing looks at."""
    sign(bundle, keys / "heir.key", keys / "heirs.crt")
    with pytest.raises(SignatureError, match=r"CN=former, which holds from .* to .*, and this machine's clock shows"):
        read_bundle(bundle, TrustedKey(certificate=keys / "former.crt"))


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")  # which the package calls
def test_a_certificate_that_may_not_sign_is_refused_by_both_sides(bundle: Path, keys: Path) -> None:
    with pytest.raises(KeyFileError, match="not for signing"):
        with_certificate(bundle, keys, "idle")
    config = signing.Config().use_certificate_signer(
        private_key=keys / "idle.key", signing_certificate=keys / "idle.crt", certificate_chain=[keys / "idle.crt"]
    )
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE])).sign(bundle, bundle / SIGNATURE)
    with pytest.raises(SignatureError, match="cannot be used for signing"):
        read_bundle(bundle, TrustedKey(certificate=keys / "ours.crt"))


def test_keys_and_certificates_do_not_stand_for_each_other(bundle: Path, keys: Path) -> None:
    with_certificate(bundle, keys, "vision")
    with pytest.raises(SignatureError, match="give --certificate in place of --key"):
        read_bundle(bundle, TrustedKey(keys / "vision.pub"))
    (bundle / SIGNATURE).unlink()
    sign(bundle, keys / "release.key")
    with pytest.raises(SignatureError, match="a key that has no certificate, and not checked: give --key"):
        read_bundle(bundle, TrustedKey(certificate=keys / "ours.crt"))


# Keys


@pytest.mark.parametrize(
    "name", ["rsa.key", "ed25519.key", "curve.key", "release.pub", "ours.crt", "locked.key", "none"]
)
def test_a_key_that_cannot_sign_is_refused(keys: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match=r"(?i)expected a key on the curve"):
        signature.check_key(SigningKey(keys / name))


def test_a_wrong_password_and_a_password_too_many_are_refused(keys: Path) -> None:
    for name in ("locked", "release"):
        with pytest.raises(KeyFileError, match="S2MLP_SIGN_PASSWORD"):
            signature.check_key(SigningKey(keys / f"{name}.key", password="wrong"))
    assert "wrong" not in repr(SigningKey(keys / "locked.key", password="wrong"))


def test_a_certificate_must_be_that_of_the_key(keys: Path) -> None:
    with pytest.raises(KeyFileError, match=r"its first certificate is not that of"):
        signature.check_key(SigningKey(keys / "release.key", keys / "vision.crt"))


@pytest.mark.parametrize("name", ["rsa.pub", "ed25519.pub", "curve.pub", "release.key", "ours.crt", "none"])
def test_a_key_that_cannot_check_is_the_keys_fault(signed: Path, keys: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="-pubout"):
        read_bundle(signed, TrustedKey(keys / name))


@pytest.mark.parametrize("name", ["release.pub", "none"])
def test_an_authority_that_is_none_is_its_files_fault(signed: Path, keys: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match=r"(?i)expected certificates as a PEM file"):
        read_bundle(signed, TrustedKey(certificate=keys / name))


# The library


def test_the_library_requires_signatures_too(signed: Path, pristine: Path, keys: Path) -> None:
    release = TrustedKey(str(keys / "release.pub"))  # type: ignore[arg-type]
    assert s2mlp_deploy.read_bundle(signed, publisher=release, require_signature=True).signature.state == "valid"
    assert s2mlp_deploy.verify(signed, publisher=release, require_signature=True).bundle.signature.state == "valid"
    for call in (s2mlp_deploy.read_bundle, s2mlp_deploy.verify):
        with pytest.raises(SignatureError, match="is not signed"):
            call(pristine, publisher=release)
        with pytest.raises(UsageError, match=r"^require_signature needs publisher\.key or publisher\.certificate"):
            call(signed, require_signature=True)


def test_a_publisher_is_one_key_or_one_authority(keys: Path) -> None:
    for wrong in ({}, {"key": keys / "release.pub", "certificate": keys / "ours.crt"}):
        with pytest.raises(UsageError, match="give one of them"):
            TrustedKey(**wrong)


# The commands


def test_verify_says_whether_a_bundle_is_signed(signed: Path, pristine: Path, keys: Path) -> None:
    def line(*arguments: object) -> str:
        ran = run("verify", *arguments)
        assert ran.code == 0, ran.err
        (found,) = (text for text in ran.out.splitlines() if text.startswith("signature"))
        return found.removeprefix("signature").strip()

    assert line(pristine) == "unsigned"
    assert line(signed) == "signed, not checked"
    assert line(signed, "--key", keys / "release.pub", "--require-signature").startswith("valid, by the key in")
    ran = run("verify", signed, "--key", keys / "release.pub", "--json")
    assert json.loads(ran.out)["signature"] == {"state": "valid", "by": f"the key in {keys / 'release.pub'}"}
    assert json.loads(run("inspect", signed, "--json").out)["signature"] == "not checked"


def test_verify_refuses_what_is_not_signed_as_it_must_be(signed: Path, pristine: Path, keys: Path) -> None:
    for arguments, code in (
        ((pristine, "--key", keys / "release.pub"), 3),
        ((signed, "--key", keys / "other.pub"), 3),
        ((signed, "--key", keys / "rsa.pub"), 3),
        ((signed, "--certificate", keys / "ours.crt"), 3),
        ((signed, "--require-signature"), 2),
        ((signed, "--key", keys / "release.pub", "--certificate", keys / "ours.crt"), 2),
    ):
        ran = run("verify", *arguments)
        assert (ran.code, ran.out) == (code, ""), arguments


def test_an_export_is_signed_and_what_is_made_of_it_says_that_it_is_not(
    checkpoint: Path, keys: Path, tmp_path: Path
) -> None:
    key, public = keys / "release.key", keys / "release.pub"
    first = run("export", checkpoint, "--sign", key, "-o", tmp_path / "first")
    assert first.code == 0, first.err
    assert run("verify", tmp_path / "first", "--key", public).code == 0
    unsigned = run("export", tmp_path / "first", "--format", "ort", "--key", public, "-o", tmp_path / "ort")
    assert unsigned.code == 0 and "the new bundle is unsigned" in " ".join(unsigned.err.split())
    report = json.loads((tmp_path / "ort" / "report.json").read_text("utf-8"))
    assert report["built_from"]["signature"] == "valid" and not (tmp_path / "ort" / SIGNATURE).exists()
    again = run("export", tmp_path / "first", "--format", "ort", "--sign", key, "--force", "-o", tmp_path / "ort")
    assert again.code == 0 and "unsigned" not in again.err
    assert run("verify", tmp_path / "ort", "--key", public).code == 0
    replaced = run("export", checkpoint, "--force", "-o", tmp_path / "ort")
    assert replaced.code == 0 and not (tmp_path / "ort" / SIGNATURE).exists(), replaced.err


def test_a_source_that_another_publisher_signed_is_not_compiled(signed: Path, keys: Path, tmp_path: Path) -> None:
    (signed / "manifest.json").write_text("{")
    ran = run("export", signed, "--format", "ort", "--key", keys / "release.pub", "-o", tmp_path / "ort")
    assert ran.code == 3 and "is not what was signed" in ran.err and not (tmp_path / "ort").exists()


def test_keys_are_looked_at_before_any_work(checkpoint: Path, keys: Path, tmp_path: Path) -> None:
    for arguments, code, words in (
        (("--sign", keys / "rsa.key"), 3, "it is of another kind"),
        (("--sign-certificate", keys / "vision.crt"), 2, "give both"),
        (("--key", keys / "release.pub"), 2, "is a checkpoint: leave them out"),
        (("--require-signature",), 2, "--require-signature needs --key or --certificate"),
    ):
        ran = run("export", checkpoint, *arguments, "-o", tmp_path / "out")
        assert ran.code == code and words in " ".join(ran.err.split()), ran.err
        assert "reading the checkpoint" not in ran.err and not (tmp_path / "out").exists()


def test_a_repair_is_signed(keys: Path, tmp_path: Path) -> None:
    model = ROOT / "examples" / "naive_detector.onnx"
    arguments = ("--shift-semantics", "paper", "-o", tmp_path / "out", "--sign", keys / "vision.key")
    ran = run("repair", model, *arguments, "--sign-certificate", keys / "vision.crt")
    assert ran.code == 0, ran.err
    assert run("verify", tmp_path / "out", "--certificate", keys / "ours.crt").code == 0
    assert run("repair", model, "--sign", keys / "none").code == 3


def test_without_the_package_signing_says_how_to_get_it(
    signed: Path, checkpoint: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    monkeypatch.delitem(sys.modules, "s2mlp_deploy.bundle.openssf", raising=False)
    monkeypatch.delattr("s2mlp_deploy.bundle.openssf", raising=False)
    for ran in (
        run("verify", signed, "--key", keys / "release.pub"),
        run("export", checkpoint, "--sign", keys / "release.key", "-o", tmp_path / "out"),
    ):
        assert ran.code == 4 and pip_install("sign") in ran.err
    assert run("verify", signed).code == 0
