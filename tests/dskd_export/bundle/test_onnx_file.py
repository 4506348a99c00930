from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_support import external_model, make_model, make_spec, move_out, protobuf_bytes, varint
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from dskd_export.bundle.onnx_file import BITS, CHILDREN, MAX_FIELDS, SINGLE, OnnxFacts, read_onnx
from dskd_export.errors import BundleError

WEIGHTS = "model.fp32.onnx.data"


def read(data: bytes, weights_size: int | None = None) -> OnnxFacts:
    return read_onnx(data, "m.onnx", weights_name=WEIGHTS, weights_size=weights_size)


def why_refused(data: bytes, weights_size: int) -> str | None:
    try:
        read(data, weights_size)
    except BundleError as error:
        return str(error)
    return None


def serialised(change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = make_model()
    change(model)
    return model.SerializeToString()


# --- the format, against the onnx package


def test_all_ways_to_a_tensor_are_known() -> None:
    """Worked out from the descriptors of the installed onnx: a way that is added one day fails here."""
    kinds: dict[str, dict[int, str]] = {}

    def collect(descriptor) -> None:
        if descriptor.name in kinds:
            return
        below = {field.number: field.message_type for field in descriptor.fields if field.message_type is not None}
        kinds[descriptor.name] = {number: kind.name for number, kind in below.items()}
        for kind in below.values():
            collect(kind)

    collect(onnx.ModelProto.DESCRIPTOR)
    leads = {"TensorProto"}
    while more := {kind for kind, below in kinds.items() if leads & set(below.values())} - leads:
        leads |= more
    expected = {
        kind: {number: child for number, child in kinds[kind].items() if child in leads}
        for kind in leads - {"TensorProto"}
    }
    expected["ModelProto"][onnx.ModelProto.METADATA_PROPS_FIELD_NUMBER] = "StringStringEntryProto"
    assert expected == CHILDREN


def test_the_fields_that_stand_once_are_those_that_protobuf_would_merge() -> None:
    for kind, numbers in SINGLE.items():
        fields = getattr(onnx, kind).DESCRIPTOR.fields_by_number
        assert all(not fields[number].is_repeated for number in numbers)
        singular = {n for n in CHILDREN.get(kind, {}) if not fields[n].is_repeated}
        assert singular <= numbers


def test_the_sizes_of_all_types() -> None:
    known = dict(TensorProto.DataType.items())
    assert BITS.keys() | {TensorProto.UNDEFINED, TensorProto.STRING} == set(known.values())
    for name, number in known.items():
        if number not in BITS:
            continue
        dtype = helper.tensor_dtype_to_np_dtype(number)
        packed = re.search(r"INT(\d)$|FLOAT(\d)E", name)  # their numpy types take a byte each
        bits = int(packed[1] or packed[2]) if packed else 8 * np.dtype(dtype).itemsize
        assert BITS[number] == bits, name


def test_metadata_and_no_file_beside_it() -> None:
    facts = read(make_model().SerializeToString())
    assert facts.metadata == make_spec().to_metadata()
    assert facts.external_bytes is None


def test_weights_beside_it() -> None:
    proto, weights = external_model("model.fp32.onnx")
    assert read(proto, len(weights)).external_bytes == len(weights)
    assert read(proto, len(weights) + 1).external_bytes == len(weights)


def test_what_onnx_itself_writes_with_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.fp32.onnx"
    onnx.save(make_model(), path, save_as_external_data=True, location=WEIGHTS, size_threshold=0)
    size = (tmp_path / WEIGHTS).stat().st_size
    assert read(path.read_bytes(), size).external_bytes == size


@pytest.mark.parametrize(
    "tensor",
    [
        numpy_helper.from_array(np.zeros((2, 0, 3), np.float32)),
        numpy_helper.from_array(np.array(3.0)),
        numpy_helper.from_array(np.array(["a", "bc"], dtype=object)),
        helper.make_tensor("t", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("t", TensorProto.INT64, [1000], [0] * 1000),
        helper.make_tensor("t", TensorProto.INT4, [5], [1, -2, 3, -4, 5]),
        helper.make_tensor("t", TensorProto.UINT2, [100], [0] * 100),
        helper.make_tensor("t", TensorProto.BFLOAT16, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("t", TensorProto.FLOAT8E4M3FN, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("t", TensorProto.COMPLEX64, [2], [1 + 2j, 3j]),
        helper.make_tensor("t", TensorProto.FLOAT16, [4], np.arange(4, dtype=np.float16).tobytes(), raw=True),
    ],
)
def test_every_way_to_write_a_tensor(tensor: TensorProto) -> None:
    read(serialised(lambda model: model.graph.initializer.append(tensor)))


# --- tensors elsewhere


def in_initializer(model: onnx.ModelProto) -> TensorProto:
    return model.graph.initializer[1]


def fresh(model: onnx.ModelProto) -> TensorProto:
    return numpy_helper.from_array(np.ones(4, np.float32), "hidden")


def attribute(tensor: TensorProto, kind: str) -> AttributeProto:
    made = AttributeProto(name="value")
    if kind == "t":
        made.type = AttributeProto.TENSOR
        made.t.CopyFrom(tensor)
    elif kind == "tensors":
        made.type = AttributeProto.TENSORS
        made.tensors.append(tensor)
    elif kind in ("g", "graphs"):
        graph = made.g if kind == "g" else made.graphs.add()
        graph.initializer.append(tensor)
    else:
        sparse = made.sparse_tensor if kind == "sparse_tensor" else made.sparse_tensors.add()
        sparse.values.CopyFrom(tensor)
    return made


def hide(model: onnx.ModelProto, tensor: TensorProto, place: str) -> None:
    """Put a tensor where a model can have one."""
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "sparse_initializer.values":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif place == "sparse_initializer.indices":
        model.graph.sparse_initializer.add().indices.CopyFrom(tensor)
    elif place == "function.node":
        model.functions.add(name="f").node.add(op_type="Constant").attribute.append(attribute(tensor, "t"))
    elif place == "function.attribute_proto":
        model.functions.add(name="f").attribute_proto.append(attribute(tensor, "t"))
    elif place.startswith("training"):
        info = model.training_info.add()
        graph = info.initialization if place.endswith("initialization") else info.algorithm
        graph.initializer.append(tensor)
    elif place == "subgraph of a subgraph":
        inner = attribute(tensor, "g")
        outer = AttributeProto(name="then_branch", type=AttributeProto.GRAPH)
        outer.g.node.add(op_type="If").attribute.append(inner)
        model.graph.node.add(op_type="If").attribute.append(outer)
    else:
        model.graph.node.add(op_type="Constant").attribute.append(attribute(tensor, place))


PLACES = (
    *("initializer", "sparse_initializer.values", "sparse_initializer.indices", "subgraph of a subgraph"),
    *("function.node", "function.attribute_proto", "training.initialization", "training.algorithm"),
    *("t", "tensors", "g", "graphs", "sparse_tensor", "sparse_tensors"),
)


@pytest.mark.parametrize("place", PLACES)
def test_no_place_hides_a_tensor(place: str) -> None:
    def change(model: onnx.ModelProto, location: str) -> None:
        tensor = fresh(model)
        move_out(tensor, location)
        hide(model, tensor, place)

    assert read(serialised(lambda model: change(model, WEIGHTS)), 16).external_bytes == 16
    with pytest.raises(BundleError, match=r"'hidden'.*'\.\./secret'"):
        read(serialised(lambda model: change(model, "../secret")), 16)


@pytest.mark.parametrize(
    "location",
    [
        *("/etc/passwd", "../model.fp32.onnx.data", "./model.fp32.onnx.data", "sub/../model.fp32.onnx.data", ""),
        *("model.fp32.onnx.data\0", "model.fp32.onnx.data ", "MODEL.FP32.ONNX.DATA", "..\\x", "C:\\x", "~/x"),
        *("*/_ORT_MEM_ADDR_/*", "file:///etc/passwd", "model.fp16.onnx.data", "spec.json", "two\nlines"),
    ],
)
def test_only_the_one_file_will_do(location: str) -> None:
    data = serialised(lambda model: move_out(in_initializer(model), location))
    with pytest.raises(BundleError, match="outside") as caught:
        read(data, 10_000)
    assert str(caught.value).isprintable()


def test_there_is_no_such_file() -> None:
    with pytest.raises(BundleError, match="missing"):
        read(serialised(lambda model: move_out(in_initializer(model), WEIGHTS)), None)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "1"}, r"85 of .*84"),
        ({"offset": str(10**18)}, "ends at byte"),
        ({"offset": "9" * 20}, "no offset"),
        ({"offset": "-1"}, "no offset"),
        ({"offset": "0x0"}, "no offset"),
        ({"offset": "1_0"}, "no offset"),
        ({"offset": "٣"}, "no offset"),
        ({"offset": ""}, "no offset"),
        ({"length": "83"}, "claims 84 bytes and has 83"),
        ({"length": "0"}, "claims 84 bytes and has 0"),
        ({"length": None}, "no length"),
        ({"offset": None}, "no offset"),
        ({"basepath": "/etc"}, "'basepath'"),
    ],
)
def test_where_in_the_file(entries: dict[str, str | None], message: str) -> None:
    def change(model: onnx.ModelProto) -> None:
        tensor = in_initializer(model)
        move_out(tensor, WEIGHTS)
        given = {entry.key: entry.value for entry in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in given.items():
            if value is not None:
                tensor.external_data.add(key=key, value=value)

    with pytest.raises(BundleError, match=message):
        read(serialised(change), 84)


def test_a_checksum_is_no_harm() -> None:
    def change(model: onnx.ModelProto) -> None:
        move_out(in_initializer(model), WEIGHTS)
        in_initializer(model).external_data.add(key="checksum", value="abc")

    assert read(serialised(change), 84).external_bytes == 84


def test_two_places_at_once() -> None:
    def both(model: onnx.ModelProto) -> None:
        data = move_out(in_initializer(model), WEIGHTS)
        in_initializer(model).raw_data = data

    def not_declared(model: onnx.ModelProto) -> None:
        move_out(in_initializer(model), WEIGHTS)
        in_initializer(model).data_location = TensorProto.DEFAULT

    def said_twice(model: onnx.ModelProto) -> None:
        move_out(in_initializer(model), WEIGHTS)
        in_initializer(model).external_data.add(key="location", value="/etc/passwd")

    for change, message in ((both, "two places"), (not_declared, "two places"), (said_twice, "twice")):
        with pytest.raises(BundleError, match=message):
            read(serialised(change), 84)


# --- what protobuf merges


def test_parts_that_protobuf_would_merge_into_one() -> None:
    """Each part alone is harmless, or not even a tensor outside; together they lie in /etc/passwd."""
    first = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", WEIGHTS), ("offset", "0"), ("length", "16")):
        first.external_data.add(key=key, value=value)
    second = TensorProto()
    second.external_data.add(key="location", value="/etc/passwd")
    node = protobuf_bytes(4, b"Constant") + protobuf_bytes(
        5, protobuf_bytes(5, first.SerializeToString()) + protobuf_bytes(5, second.SerializeToString())
    )
    data = make_model().SerializeToString()
    merged = data + protobuf_bytes(7, protobuf_bytes(1, node))
    assert onnx.load_from_string(merged).graph.node[-1].attribute[0].t.external_data[-1].value == "/etc/passwd"
    with pytest.raises(BundleError, match="field 7 of a ModelProto"):
        read(merged, 16)
    whole = protobuf_bytes(7, protobuf_bytes(1, node))
    with pytest.raises(BundleError, match="field 5 of a AttributeProto"):
        read(whole, 16)


def test_a_key_twice_in_the_metadata() -> None:
    def change(model: onnx.ModelProto) -> None:
        model.metadata_props.add(key="dskd_spec", value="{}")

    with pytest.raises(BundleError, match="'dskd_spec' twice"):
        read(serialised(change))


# --- claims


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([2_500_000_000], r"claims 10,000,000,000 bytes and has 84"),
        ([1 << 40, 1 << 40], "too many values"),
        ([-1], "too many values"),
        ([3, 6], "claims 72 bytes and has 84"),
    ],
)
def test_a_tensor_that_claims_more_or_less_than_it_has(dims: list[int], message: str) -> None:
    def change(model: onnx.ModelProto) -> None:
        del in_initializer(model).dims[:]
        in_initializer(model).dims.extend(dims)

    with pytest.raises(BundleError, match=message):
        read(serialised(change))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.STRING, 99])
def test_a_tensor_without_data_that_claims_ten_gigabytes(kind: int) -> None:
    tensor = protobuf_bytes(1, varint(2_500_000_000)) + b"\x10" + varint(kind) + protobuf_bytes(8, b"w")
    with pytest.raises(BundleError, match="2,500,000,000 values"):
        read(protobuf_bytes(7, protobuf_bytes(5, tensor)))


def test_a_node_that_opens_a_file_of_its_own() -> None:
    def change(model: onnx.ModelProto) -> None:
        node = model.graph.node.add(op_type="EPContext", domain="com.microsoft")
        node.attribute.append(helper.make_attribute("ep_cache_context", "../engine.bin"))

    with pytest.raises(BundleError, match="EPContext"):
        read(serialised(change))


def test_nesting_is_bounded() -> None:
    tensor = TensorProto(name="w", data_location=TensorProto.EXTERNAL)
    graph = protobuf_bytes(5, tensor.SerializeToString())
    for _ in range(5000):
        graph = protobuf_bytes(1, protobuf_bytes(5, protobuf_bytes(6, graph)))
    with pytest.raises(BundleError, match="64 messages"):
        read(protobuf_bytes(7, graph))


def test_work_is_bounded() -> None:
    for fields in (b"\x08\x01" * (MAX_FIELDS + 1), protobuf_bytes(7, b"\x0a\x00" * (MAX_FIELDS + 1))):
        began = time.process_time()
        with pytest.raises(BundleError, match=r"[\d,]+ fields"):
            read(fields)
        assert time.process_time() - began < 20
    dims = protobuf_bytes(7, protobuf_bytes(5, protobuf_bytes(1, b"\x01" * (MAX_FIELDS + 1))))
    with pytest.raises(BundleError, match=r"[\d,]+ fields"):
        read(dims)


# --- no protobuf at all


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"no model",
        b"PK\x03\x04",
        b"\x3a",
        b"\x3a\xff",
        b"\x3a\x05abc",
        b"\x3a" + b"\xff" * 11,
        b"\x38\x01",
        b"\x3b\x3c",
        b"\x07",
        b"\x08\x01",
        protobuf_bytes(7, b"\x2a\xff\xff\xff\xff\x0f"),
        protobuf_bytes(7, protobuf_bytes(5, b"\x42\x7f")),
        protobuf_bytes(7, protobuf_bytes(5, b"\x40\x01")),
        protobuf_bytes(7, protobuf_bytes(5, protobuf_bytes(14, b"1"))),
        protobuf_bytes(7, b"") + b"\xf2\x01\x01",
    ],
)
def test_what_is_no_model(data: bytes) -> None:
    if data == b"\x08\x01":
        assert onnx.load_from_string(data).ir_version == 1  # a protobuf, but without a graph
    with pytest.raises(BundleError, match="ONNX model"):
        read(data)


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_any_bytes_are_a_model_or_refused(data: st.DataObject) -> None:
    """And what is accepted, protobuf itself reads as having no tensor outside of its file."""
    original = external_model("model.fp32.onnx")[0]
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(mutated) - 1))
        mutated[position] = data.draw(st.integers(0, 255))
    if refusal := why_refused(bytes(mutated), 112):
        assert refusal.isprintable()
        return
    try:
        model = onnx.load_from_string(bytes(mutated))
    except Exception:  # protobuf may be stricter
        return
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        for entry in tensor.external_data:
            assert entry.key != "location" or entry.value == WEIGHTS


def test_a_large_graph_is_read_quickly() -> None:
    """More nodes than a model of timm has, with Q/DQ everywhere."""

    def change(model: onnx.ModelProto) -> None:
        for index in range(10_000):
            node = model.graph.node.add(op_type="Conv", name=f"node_{index}")
            node.input.extend(["a", "b", "c"])
            node.output.append(f"out_{index}")
            for name in ("dilations", "kernel_shape", "pads", "strides"):
                node.attribute.append(helper.make_attribute(name, [1, 1, 1, 1]))

    data = serialised(change)
    began = time.process_time()
    read(data)
    assert time.process_time() - began < 10
