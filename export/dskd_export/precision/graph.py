"""Edits of an ONNX graph that the precisions share. Models are never changed in place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any

from dskd_export.documents.precision import PRECISION_KEY, PrecisionMetadata
from dskd_export.errors import ModelError, require

# A protobuf ends at 2 GB, and the tools need the whole model in one.
MAX_BYTES = 1_900_000_000


def load(model: bytes) -> Any:
    """Parse a serialised model and give every node a unique name.

    Raises:
        ModelError: larger than a protobuf can be.
    """
    onnx = require("onnx", "onnx")
    if len(model) > MAX_BYTES:
        raise ModelError(
            f"The model has {len(model) / 1e9:.1f} GB; other precisions support up to 1.9 GB.",
            "Set export.precisions=[fp32].",
        )
    proto = onnx.load_from_string(model)
    names = Counter(node.name for node in proto.graph.node)
    for index, node in enumerate(proto.graph.node):
        if not node.name or names[node.name] > 1:
            node.name = f"{node.op_type}_{index}"
    return proto


def copy(model: Any) -> Any:
    """Copy a model."""
    other = type(model)()
    other.CopyFrom(model)
    return other


def opset_of(model: Any) -> int:
    """Version of the default operator set."""
    return next(int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx"))


def finish(model: Any, metadata: PrecisionMetadata, source: Any) -> bytes:
    """Serialise a converted model: checked, with the source's metadata and how it was made.

    The same model gives the same bytes: what tools write of themselves and of their files is taken out.

    Args:
        model: the converted one.
        metadata: which precision it is, and what made it.
        source: the fp32 model, whose metadata (the spec among it) is carried over.

    Raises:
        ModelError: the tool made a model that ONNX refuses.
    """
    onnx = require("onnx", "onnx")
    proto = copy(model)
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    values = (proto.graph.value_info, proto.graph.input, proto.graph.output, proto.graph.initializer)
    for value in (value for group in values for value in group):
        value.doc_string = ""
        del value.metadata_props[:]
    del proto.graph.value_info[:]  # inferred again by whoever needs it; tools leave stale types here
    del proto.graph.metadata_props[:]
    proto.producer_name, proto.producer_version = source.producer_name, source.producer_version
    proto.doc_string = proto.graph.doc_string = ""
    proto.graph.name = source.graph.name
    carried = {item.key: item.value for item in source.metadata_props}
    carried[PRECISION_KEY] = json.dumps(metadata.model_dump(mode="json"), sort_keys=True)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(sorted(carried.items())))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{metadata.producer} made a {metadata.precision} model that ONNX refuses: {reason}",
            f"Leave {metadata.precision} out of export.precisions, or choose another export.quantize.producer.",
        ) from error
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def producers(model: Any) -> dict[str, Any]:
    """Tensor -> the node that makes it."""
    return {name: node for node in model.graph.node for name in node.output if name}


def remove_dead_nodes(model: Any) -> Any:
    """Remove nodes and initializers whose results are unread; changes and returns `model`."""
    outputs = {value.name for value in model.graph.output}
    while True:
        read = set(outputs)
        for node in model.graph.node:
            read.update(node.input)
            for attribute in node.attribute:
                read.update(_names_read(attribute.g))
                for graph in attribute.graphs:
                    read.update(_names_read(graph))
        dead = [node for node in model.graph.node if not read.intersection(node.output)]
        if not dead:
            break
        for node in dead:
            model.graph.node.remove(node)
    for initializer in [item for item in model.graph.initializer if item.name not in read]:
        model.graph.initializer.remove(initializer)
    return model


def _names_read(graph: Any) -> Collection[str]:
    """All that a subgraph reads, its own tensors among them."""
    names: set[str] = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            names.update(_names_read(attribute.g))
            for inner in attribute.graphs:
                names.update(_names_read(inner))
    return names
