"""What the devices of the teacher cannot do is refused at once, with what to set instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_task import run_config

from flows import teacher_needs
from flows.config import DistillConfig, parse_config
from flows.inline import run_inline
from flows.teacher_needs import check_teacher_devices, on_gpu
from sparsedistill.errors import ConfigError

TAKEN: Mapping[str, Any] = {"finetune": False}
ELSEWHERE = "tcp://scheduler:8786"


def configured(
    devices: Sequence[str] | None = None,
    *,
    teacher: Mapping[str, Any] | None = None,
    engine: str = "torch",
    dask: str | None = None,
    data: Path = Path("data"),
    store: Path = Path("store"),
) -> DistillConfig:
    run: dict[str, Any] = {}
    if devices is not None:
        run["teacher_devices"] = list(devices)
    if dask is not None:
        run |= {"runner": "dask", "dask_address": dask}
    tables = {"teacher": teacher or {}, "logits": {"engine": engine}, "run": run}
    return parse_config(run_config(data, store, **tables))


def without_a_teacher(devices: Sequence[str]) -> DistillConfig:
    given = run_config(Path("data"), Path("store"), run={"teacher_devices": list(devices)})
    del given["teacher"]
    return parse_config({**given, "logits": {"path": "logits.parquet", "engine": "openvino"}})


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, as far as torch can tell."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture(autouse=True)
def _openvino_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_needs, "find_spec", lambda name: object())


@pytest.mark.parametrize("devices", [None, ["cpu"]])
def test_float16_on_the_processor_ends_a_run_before_its_first_artifact(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: list[str] | None
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    store = tmp_path / "store"
    config = configured(devices, teacher={"precision": "float16"}, data=own_data, store=store)
    with pytest.raises(ConfigError, match=r'"float16" is for GPUs.* set "bfloat16" or "float32"'):
        run_inline(config)
    assert not list(store.glob("*/*"))


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            configured(["cuda:0", "cpu"], teacher={**TAKEN, "precision": "float16"}),
            "name only GPUs in .run. teacher_devices",
        ),
        (
            configured(["cuda:1"], teacher=TAKEN, engine="openvino"),
            r'would run on cuda:1; set engine = "torch", or \[run\] teacher_devices = \["cpu"\]',
        ),
        (configured(engine="openvino"), r"for CPUs, and the teacher would run on cuda:0"),
        (
            configured(["cpu"], teacher={"precision": "float16"}, engine="openvino"),
            r'no float16; set \[teacher\] precision to "bfloat16" or "float32"',
        ),
        (
            configured(["cuda:1"]),
            r"takes the first GPU that torch sees, cuda:0, which cuda:1 leaves out; leave "
            "teacher_devices out and set .* CUDA_VISIBLE_DEVICES",
        ),
        (configured(["cpu", "cuda:1"]), "which cpu, cuda:1 leaves out"),
        (configured(["mps"]), r"fine-tuning runs on a CPU or on CUDA, not on mps:0"),
        (configured(["cuda:0", "xpu:1"]), r"fine-tuning runs on a CPU or on CUDA, not on xpu:1"),
        (configured(["cuda:2"], teacher=TAKEN), "there is no cuda:2 here, torch finds 2 GPUs"),
    ],
)
def test_what_a_device_cannot_do_is_refused(given: DistillConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_teacher_devices(given)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    "given",
    [
        configured(),
        configured(teacher={"precision": "float16"}),
        configured(["cuda"]),
        configured(["cuda:1", "cuda:0"]),
        configured(["cuda:1"], teacher=TAKEN),
        configured(["mps"], teacher=TAKEN),
        configured(["cpu"], teacher={"precision": "bfloat16"}, engine="openvino"),
        without_a_teacher(["cuda:1"]),
    ],
)
def test_what_a_device_can_do_is_let_pass(given: DistillConfig) -> None:
    check_teacher_devices(given)


def test_openvino_that_is_not_installed_is_refused_here_and_not_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(teacher_needs, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "sparsedistill\[openvino\]"'):
        check_teacher_devices(configured(["cpu"], engine="openvino"))
    check_teacher_devices(configured(["cpu"]))
    check_teacher_devices(configured(["cpu"], engine="openvino", dask=ELSEWHERE))


def test_of_devices_elsewhere_only_what_their_names_say_is_checked() -> None:
    check_teacher_devices(configured(["cuda:0", "cuda:99"], dask=ELSEWHERE))
    check_teacher_devices(configured(teacher={"precision": "float16"}, dask=ELSEWHERE))
    check_teacher_devices(configured(engine="openvino", dask=ELSEWHERE))
    for config, says in (
        (configured(["cuda:99"], dask=ELSEWHERE), "cuda:99 leaves out"),
        (configured(["gpu"], dask=ELSEWHERE), "torch knows no device 'gpu'"),
        (configured(["cuda"], engine="openvino", dask=ELSEWHERE), "would run on cuda:0"),
        (configured(["cpu"], teacher={"precision": "float16"}, dask=ELSEWHERE), "is for GPUs"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_teacher_devices(config)


@pytest.mark.parametrize("stage", ["teacher", "logits", "evaluation"])
def test_the_teacher_needs_its_gpu_to_be_made_to_label_and_to_be_timed(stage: str) -> None:
    assert on_gpu(stage, configured(["cuda:0"]))
    assert not on_gpu(stage, configured(["cpu"]))
