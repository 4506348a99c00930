"""Serialise a graph deterministically, without traces of the machine; large weights in a second file."""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd_export.bundle.manifest import weights_name
from dskd_export.errors import require
from dskd_export.files.atomic import write_atomic
from dskd_export.onnx_from_torch.deployed import STUDENT

# Larger weights go into a second file: a protobuf ends at 2 GB, and the graph needs some of it.
MAX_SINGLE_FILE_BYTES = 1_900_000_000


@dataclass(frozen=True)
class OnnxModel:
    """A serialised ONNX model under the name that it must be written by.

    Attributes:
        file_name: for example `model.fp32.onnx`; with `weights` no other name will do, as `proto` refers to them.
        proto: the protobuf.
        weights: content of the file `weights_name(file_name)`; None: everything is in `proto`.
    """

    file_name: str
    proto: bytes
    weights: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """Of both files."""
        return len(self.proto) + len(self.weights or b"")

    def files(self) -> dict[str, bytes]:
        """File name -> content, one or two of them."""
        files = {self.file_name: self.proto}
        if self.weights is not None:
            files[weights_name(self.file_name)] = self.weights
        return files

    def write(self, folder: Path) -> Path:
        """Write each file atomically into a folder; remove a stale weights file.

        Returns:
            The path to open.

        Raises:
            EnvironmentProblem: the disk is full, or the place cannot be written to.
        """
        path = folder / self.file_name
        # The weights first: what can be opened is complete.
        for name, content in sorted(self.files().items(), reverse=True):
            write_atomic(folder / name, content)
        if self.weights is None:
            (folder / weights_name(self.file_name)).unlink(missing_ok=True)
        return path


_SCOPES = "pkg.torch.onnx.name_scopes"  # of torch's exporter: paths of nested modules, then the node
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm")


def clean(graph: Any, metadata: Mapping[str, str]) -> None:
    """Name nodes by their module, drop what the exporter noted of source files and paths, set the metadata.

    Args:
        graph: an `onnx_ir.Model`, changed in place.
        metadata: all that the model will carry.
    """
    ir, passes = require("onnx_ir", "onnx"), require("onnx_ir.passes.common", "onnx")
    for node in ir.traversal.RecursiveGraphIterator(graph.graph):
        if (module := _module_of(node)) is not None:
            node.name = f"{module}/{node.op_type}" if module else node.op_type
    # Torch gives a buffer and an operator the same name at times: `mean`.
    passes.NameFixPass()(graph)
    passes.ClearMetadataAndDocStringPass()(graph)
    for value in [*graph.graph.inputs, *graph.graph.outputs, *graph.graph.initializers.values()]:
        value.metadata_props.clear()
    for node in ir.traversal.RecursiveGraphIterator(graph.graph):
        for value in node.outputs:
            value.metadata_props.clear()
    graph.graph.metadata_props.clear()
    graph.metadata_props.clear()
    graph.metadata_props.update(sorted(metadata.items()))


def _module_of(node: Any) -> str | None:
    """Path of the timm module that a node comes from, empty for the model itself; None: not recorded."""
    weight = node.inputs[1] if node.op_type in _WEIGHTED and len(node.inputs) > 1 else None
    if weight is not None and (weight.name or "").endswith(".weight"):
        # After folding, a convolution has the scope of its batch norm, but still its own weights.
        path = str(weight.name).removesuffix(".weight")
    elif scopes := node.metadata_props.get(_SCOPES):
        *modules, _ = ast.literal_eval(scopes)
        path = str(modules[-1]) if modules else ""
    else:
        return None
    return path.removeprefix(STUDENT).removeprefix(".") if path.split(".")[0] == STUDENT else path


def pack(graph: Any, file_name: str, max_single_file_bytes: int) -> OnnxModel:
    """Serialise a graph, with its weights in a file of their own where they are larger than that.

    Args:
        graph: an `onnx_ir.Model`, unchanged.
    """
    ir = require("onnx_ir", "onnx")
    tensors = [value.const_value for value in graph.graph.initializers.values()]
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) <= max_single_file_bytes:
        return OnnxModel(file_name, ir.to_proto(graph).SerializeToString(deterministic=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file_name
        ir.save(graph, path, external_data=weights_name(file_name))
        proto = require("onnx", "onnx").load(str(path), load_external_data=False)
        weights = (Path(folder) / weights_name(file_name)).read_bytes()
    return OnnxModel(file_name, proto.SerializeToString(deterministic=True), weights)


def check(model: OnnxModel) -> None:
    """Check a model against the ONNX standard, with types and shapes inferred.

    Raises:
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: what is wrong with it.
    """
    onnx = require("onnx", "onnx")
    if model.weights is None:
        onnx.checker.check_model(model.proto, full_check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        onnx.checker.check_model(str(model.write(Path(folder))), full_check=True)
