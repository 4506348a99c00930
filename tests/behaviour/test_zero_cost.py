"""What the training needed and the device does not get: no tensor of it is in any file of the bundle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from run_support import Finished
from torch import nn

from dskd_compress.data import open_data
from dskd_compress.methods import MethodTask, create_task
from dskd_compress.stages.setup import create_student, make_pair
from dskd_compress.teachers.load import load_teacher

Shape = tuple[int, ...]


@pytest.fixture(scope="module")
def task(finished: Finished) -> MethodTask:
    """The task that trained the student: the same modules, whatever their values."""
    sets = open_data(finished.recipe.data, finished.recipe.seed)
    student, format = create_student(finished.recipe, len(sets.classes))
    pair = make_pair(student, format, load_teacher(finished.recipe, finished.folder, sets))
    return create_task(
        finished.recipe.method, student, pair, label_smoothing=0.0, seed=0, device=torch.device("cpu")
    )


def training_only(task: MethodTask) -> dict[str, torch.Tensor]:
    """Name -> every parameter and buffer beside the student, whether or not a state dict has it."""
    student = {id(tensor) for tensor in (*task.module.student.parameters(), *task.module.student.buffers())}
    tensors = [*task.module.named_parameters(), *task.module.named_buffers()]
    return {name: tensor for name, tensor in tensors if id(tensor) not in student}


def shape_of(tensor: torch.Tensor | np.ndarray) -> Shape:
    """Without ones and in order, as an exporter may turn a matrix around."""
    return tuple(sorted(length for length in tensor.shape if length > 1))


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else attribute.tensors
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from tensors_of(inner)


def traces(bundle: Path, task: MethodTask) -> list[str]:
    """Where a training-only tensor shows in a bundle: its name in any file, or a shape that no student has."""
    only, student = training_only(task), task.module.student
    own = {shape_of(tensor) for tensor in student.state_dict().values()}
    telling = {shape_of(tensor): name for name, tensor in only.items()}.items()
    shapes = {shape: name for shape, name in telling if shape not in own and math.prod(shape) > 1}
    modules = {name.split(".")[0] for name in only}
    found = []
    for path in sorted(bundle.iterdir()):
        data = path.read_bytes()
        found += [f"{path.name} names {name}" for name in only if name.encode() in data]
        arrays: dict[str, np.ndarray] = {}
        if path.suffix == ".onnx":
            model = onnx.load(path)
            arrays = {f"{i} {t.name}": numpy_helper.to_array(t) for i, t in enumerate(tensors_of(model.graph))}
            names = [t.name for t in tensors_of(model.graph)]
            for node in model.graph.node:
                names += [node.name, *node.input, *node.output]
            words = {word for name in names for word in name.replace("/", ".").split(".")}
            found += [f"{path.name} has a value of {module}" for module in modules & words]
            parameters = sum(tensor.numel() for tensor in student.state_dict().values())
            values = sum(array.size for array in arrays.values() if array.dtype.kind == "f")
            if values > parameters:
                found.append(f"{path.name} holds {values} values, the student {parameters}")
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        found += [
            f"{path.name}: {name} has the shape of {shapes[shape_of(array)]}"
            for name, array in arrays.items()
            if shape_of(array) in shapes
        ]
    return found


def test_there_is_something_to_look_for(task: MethodTask) -> None:
    only = training_only(task)
    assert {name.split(".")[0] for name in only} >= {"projection", "denoiser", "hash_loss"}
    assert set(task.get_task_state()) <= set(only)
    own = {shape_of(tensor) for tensor in task.module.student.state_dict().values()}
    for module in ("projection", "denoiser", "hash_loss"):
        assert any(shape_of(t) not in own and t.numel() > 1 for n, t in only.items() if n.split(".")[0] == module)


def test_nothing_of_the_training_is_in_the_bundle(finished: Finished, task: MethodTask) -> None:
    assert traces(finished.folder.bundle, task) == []


def with_initializer(path: Path, name: str, values: np.ndarray) -> None:
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    path.write_bytes(model.SerializeToString())


def test_what_is_planted_is_found(finished: Finished, task: MethodTask, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    model = folder.bundle / "model.fp32.onnx"
    sound = model.read_bytes()
    own = {shape_of(tensor) for tensor in task.module.student.state_dict().values()}
    weights = {name: tensor for name, tensor in training_only(task).items() if shape_of(tensor) not in own}
    name, tensor = max(weights.items(), key=lambda item: item[1].numel())

    with_initializer(model, name, np.zeros(1, np.float32))
    assert f"model.fp32.onnx names {name}" in traces(folder.bundle, task)

    model.write_bytes(sound)
    with_initializer(model, "innocent", tensor.detach().numpy().T)
    assert any("innocent has the shape of" in trace for trace in traces(folder.bundle, task))

    model.write_bytes(sound)
    with_initializer(model, "denoiser.hidden", np.zeros(1, np.float32))
    assert "model.fp32.onnx has a value of denoiser" in traces(folder.bundle, task)

    model.write_bytes(sound)
    (folder.bundle / "notes.txt").write_text(f"see {name}")
    assert traces(folder.bundle, task) == [f"notes.txt names {name}"]


def test_the_student_has_no_training_only_module(finished: Finished, task: MethodTask) -> None:
    assert isinstance(task.module.student, nn.Module)
    assert not [
        name for name, _ in task.module.student.named_modules() if name.startswith(("projection", "denoiser"))
    ]
