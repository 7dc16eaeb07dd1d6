"""What torch.save writes beside weights is read as data, whatever package's objects it was."""

from __future__ import annotations

import argparse
import base64
import collections
import datetime as dt
import decimal
import enum
import functools
import io
import random
import sys
import types
import uuid
import zlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.support import random_model, small_spec
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.checkpoint.torch_format import training_objects, unpickler
from s2mlp_deploy.checkpoint.training_metadata import Recorded, read_recorded
from s2mlp_deploy.errors import CheckpointError

OMEGACONF = (
    "c-nQ8c~{dw6vfLXB_N<82;zpQ!KLoj9S~d#RpS;Hh-o_Q1k$9pNzsC%pvQCI+xZdvD9%h8O|kT!zD)9d_s)HjthZWTi4;xCa|@}wZ3UvRi^?o7XTlPRi4C+cw5"
    "obnB9SmkBrx-4V4^M7nlpW(@P@#&T~e8^Kcb+W_jWMsQuQS7t&oBd)XD^%7XP!|qB8B)6eRU-e$&e>5i1DqcUgv!tJ+RryN00%UkVh7@XCShxu%2eO}&j@FOwR2"
    "vU&$E3yxXzv74b+SE5U!;&}o3w)9>p?|aS)sTh`NQG$NU@*Ib2a-gr|Nx`f-L8!HdDnGGT!#=6WH9}hhG^zLS1>%qraqC|9(_}TLcZz7rW`!?fFe}>(o=hOFhZq"
    "j1dOKf|xeZg1=m^6>m9|ll&?v(pm3Go3?V<|p-lRQrnDUJrrhQwqpGr4JG#sVe0F`=lkhW0HJr)LQmx_jOuM&*KX5!d>G|o9*M&mrr1;-gqMB*nIPSwR5QWxzC)"
    "X>hDurm>}b6Ue0I?&kQ@qyy(UxOobXaVQcm?PKA6JN|c%L@f5u6~~30(Y|gDE&J@7x_b%7%tZ>W~HA@Lio87^K(_hHK{r-gEm(95lLqT_>xe$&TvEQSHNyE+-ii"
    "i2-xiy?2d-JA&jOoqtzVY0~XX0F<nejk>C`=bd=ydhM8!5^}HqpayEv%ui*h7-?nrfs?y#ghR2b;Ck&Y;d!381<~3v`V~VC9PX0>BUwx-f8J<O`=L}ktoxX^nUT"
    "S!?6Y4d?n+T;dylq6a3e>w8>b-^!O;92`@uK=c9t$$MMFt~^?jwV_ExH8(&c(o%hW!80kubUfLoqT*8SEy}EyY;N8XU=36efQ+?6<_=MktS=+$1{0P!$dSPN;yP8"
    "lhGgJ~fH%a|~6}u-XL0qpQ|Wo@<r})+GB21B=*S8NM~J>6&1#$JiShzSqAOX}zDL#@ED)m5M$Y3_qky>JP9Q+D8"
)
"""OmegaConf 2.4.0: create({"data": {"img_size": [20, 28], "mean": [.25] * 3, "std": [.5] * 3}, "name": "${data.img_size}"})."""

PACKAGES = {
    "yacs": b"\x80\x02cyacs.config\nCfgNode\nq\x00)\x81q\x01X\x04\x00\x00\x00DATAq\x02h\x00)\x81q\x03X\x08\x00\x00\x00IMG_SIZEq\x04K\x1cs}"
    b"q\x05(X\r\x00\x00\x00__immutable__q\x06\x89X\x13\x00\x00\x00__deprecated_keys__q\x07c__builtin__\nset\nq\x08]q\t\x85q\nRq\x0bX\x10\x00"
    b"\x00\x00__renamed_keys__q\x0c}q\rX\x0f\x00\x00\x00__new_allowed__q\x0e\x89ubs}q\x0f(h\x06\x89h\x07h\x08]q\x10\x85q\x11Rq\x12h\x0c}q\x13"
    b"h\x0e\x89ub.",
    "easydict": b"\x80\x02ceasydict\nEasyDict\nq\x00)\x81q\x01X\x04\x00\x00\x00dataq\x02h\x00)\x81q\x03X\x08\x00\x00\x00img_sizeq\x04K\x1cs}"
    b"q\x05h\x04K\x1csbs}q\x06h\x02h\x03sb.",
    "addict": b"\x80\x02caddict.addict\nDict\nq\x00X\x04\x00\x00\x00dataq\x01h\x00X\x08\x00\x00\x00img_sizeq\x02K\x1c\x86q\x03\x85q\x04\x81q"
    b"\x05h\x02K\x1csh\x05b\x86q\x06\x85q\x07\x81q\x08h\x01h\x05sh\x08b.",
    "munch": b"\x80\x02cmunch\nMunch\nq\x00)\x81q\x01X\x04\x00\x00\x00dataq\x02h\x00)\x81q\x03X\x08\x00\x00\x00img_sizeq\x04K\x1cs}q\x05h"
    b"\x04K\x1csbs}q\x06h\x02h\x03sb.",
}
"""What these packages' objects pickle to."""


def read(pickle: bytes) -> Any:
    def persistent(_: Any) -> Any:
        raise AssertionError("a tensor")

    return unpickler.load(io.BytesIO(pickle), training_objects.names(), persistent)


def test_configurations_of_omegaconf_are_read() -> None:
    config = read(zlib.decompress(base64.b85decode(OMEGACONF)))
    expected = Recorded(image_size=(20, 28), mean=(0.25,) * 3, std=(0.5,) * 3)
    assert read_recorded({"config": config}) == expected
    assert read_recorded({"cfg": {"inner": config}}) == expected


@pytest.mark.parametrize("package", PACKAGES)
def test_configurations_of_other_packages_are_read(package: str) -> None:
    assert read_recorded({"cfg": read(PACKAGES[package])}) == Recorded(image_size=(28, 28))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_numpy_arrays_of_statistics_are_read(tmp_path: Path, protocol: int, zipped: bool, dtype: Any) -> None:
    args = argparse.Namespace(
        mean=np.array([0.25, 0.5, 0.75], dtype), std=np.full((3, 1, 1), 0.5, dtype), img_size=np.array([20, 28])
    )
    content = {"model": random_model(small_spec()).state_dict(), "args": args, "rng": np.random.get_state()}
    path = tmp_path / "model.pt"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = load_checkpoint(path).recorded
    assert found == Recorded(image_size=(20, 28), mean=(0.25, 0.5, 0.75), std=(0.5, 0.5, 0.5))


KEYS: dict[str, Hashable] = {
    "a tuple": (0, 1),
    "nested tuples": ((0, "a"), (1, None)),
    "a number of NumPy's": np.int64(3),
    "a type": torch.float16,
    "a set": frozenset({1}),
    "a date": dt.date(2024, 1, 1),
    "a path": Path("a"),
    "a tensor": torch.zeros(2),
}

OPTIMIZER = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])

VALUES: dict[str, Any] = {
    "a defaultdict": collections.defaultdict(list, {"loss": [1.0]}),
    "a deque": collections.deque([1, 2], 3),
    "a set": {"a", "b"},
    "a frozenset": frozenset({"a"}),
    "a range": range(3),
    "a slice": slice(1, 2),
    "a complex number": 1j,
    "no bytes": b"",
    "bytes": b"ab",
    "an array of bytes": bytearray(b"ab"),
    "a size": torch.Size([3, 2]),
    "a device": torch.device("cuda:0"),
    "a type": torch.bfloat16,
    "a type of NumPy's": np.float32,
    "NumPy's generator": np.random.get_state(),
    "an array of texts": np.array(["a", "b"]),
    "an array of objects": np.array([{}, None], object),
    "an array of no dimension": np.array(1.5),
    "Python's generator": random.getstate(),
    "torch's generator": torch.get_rng_state(),
    "a version": torch.__version__,
    "a date": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
    "a span": dt.timedelta(1),
    "a path": Path("a"),
    "a namespace": types.SimpleNamespace(a=1),
    "a decimal": decimal.Decimal("1.5"),
    "an id": uuid.UUID(int=5),
    "a counter": collections.Counter("aab"),
    "a generator of NumPy's": np.random.default_rng(0),
    "an optimizer": OPTIMIZER,
    "a schedule": torch.optim.lr_scheduler.StepLR.__new__(torch.optim.lr_scheduler.StepLR),
    "an optimizer to be made": functools.partial(torch.optim.SGD, lr=0.1),
    "a loss": torch.nn.CrossEntropyLoss(label_smoothing=0.1),
}


@pytest.mark.parametrize("protocol", [2, 4])
def test_whatever_lies_beside_the_weights_does_not_hinder(tmp_path: Path, protocol: int) -> None:
    weights = random_model(small_spec()).state_dict()
    things = VALUES | {f"{name} as key": {key: 0.5} for name, key in KEYS.items()}
    for zipped in (True, False):
        path = tmp_path / "model.pt"
        content = {"model": weights, "args": {"img_size": [20, 28]}, **things}
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        found = load_checkpoint(path)
        assert found.spec.image_size == (20, 28)
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in weights.items())


def module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """Let ``name`` be a module with ``content``, as if its package were installed."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(parts[end - 1]))
    vars(sys.modules[name]).update(content)


class HistoryBuffer:
    """What MMEngine's keeps: arrays, and functions by name."""

    __module__ = "mmengine.logging.history_buffer"

    def mean(self) -> float:
        return 0.0


def test_the_log_of_mmengine_does_not_hinder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HistoryBuffer.mean.__module__ = HistoryBuffer.__module__
    module(monkeypatch, HistoryBuffer.__module__, HistoryBuffer=HistoryBuffer)
    log = HistoryBuffer()
    vars(log).update(
        _log_history=np.arange(3.0), statistics_methods={"mean": HistoryBuffer.mean}
    )  # written with getattr
    meta = {"dataset_meta": {"classes": tuple("abcdefg")}, "cfg": "model = dict()"}
    weights = random_model(small_spec()).state_dict()
    content = {"meta": meta, "state_dict": weights, "message_hub": {"log_scalars": {"loss": log}}}
    torch.save(content, tmp_path / "epoch_3.pth")
    found = load_checkpoint(tmp_path / "epoch_3.pth", image_size=(20, 28))
    assert found.wrapper == "state_dict"


def test_the_schedule_of_old_versions_of_torch_does_not_hinder(tmp_path: Path) -> None:
    schedule = {"total_steps": 5, "anneal_func": torch.optim.lr_scheduler.OneCycleLR._annealing_cos}
    torch.save({"model": random_model(small_spec()).state_dict(), "scheduler": schedule}, tmp_path / "model.pt")
    assert load_checkpoint(tmp_path / "model.pt", image_size=(20, 28)).wrapper == "model"


def test_torchvisions_name_of_an_interpolation_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "torchvision.transforms.functional"
    modes = enum.Enum("InterpolationMode", {"BILINEAR": "bilinear"}, module=place)  # type: ignore[misc]
    module(monkeypatch, place, InterpolationMode=modes)
    args = argparse.Namespace(interpolation=modes["BILINEAR"], img_size=[20, 28])
    torch.save({"model": random_model(small_spec()).state_dict(), "args": args}, tmp_path / "model.pt")
    assert load_checkpoint(tmp_path / "model.pt").recorded.interpolation == "bilinear"


class Own:
    """An object of the user's own code."""


def test_an_object_of_the_users_own_is_refused_with_how_to_save_the_weights_beside_it(tmp_path: Path) -> None:
    content = {"epoch": 3, "state_dict": random_model(small_spec()).state_dict(), "hyper_parameters": {"net": Own()}}
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="more than weights") as caught:
        load_checkpoint(tmp_path / "model.ckpt")
    assert "test_training_objects.Own" in str(caught.value)
    assert "torch.save(checkpoint['state_dict'], PATH)" in str(caught.value)


def test_a_detector_is_refused_with_the_way_through_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type("DetectionModel", (torch.nn.Module,), {"__module__": "ultralytics.nn.tasks"})
    module(monkeypatch, "ultralytics.nn.tasks", DetectionModel=kind)
    torch.save({"model": kind(), "ema": None, "train_args": {"imgsz": 640}}, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match="yolo export format=onnx") as caught:
        load_checkpoint(tmp_path / "best.pt")
    assert "s2mlp-repair" in str(caught.value)
