from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_support import canonical, make_models, make_provenance, sign

from dskd_export.bundle.codec import MAX_SIZE
from dskd_export.bundle.manifest import MAX_TOTAL, FileFacts, Manifest, ModelFacts, needs_calibration, size_limit
from dskd_export.errors import BundleError

FACTS = FileFacts(sha256="0" * 64, size=3)
NAMES = ("spec.json", "labels.txt", "golden.npz", "calibration.json", "model.int8.onnx", "model.fp32.onnx")


def make_manifest(*more: str) -> Manifest:
    return Manifest.of(
        dict.fromkeys((*NAMES, *more), FACTS),
        {name: ModelFacts(producer=make_models()[name].producer) for name in ("int8", "fp32")},
        make_provenance(),
    )


def altered(change: Callable[[dict], object]) -> bytes:
    content = json.loads(make_manifest().to_json())
    change(content)
    return sign(content)


def test_it_is_canonical_and_carries_its_own_sha256() -> None:
    data = make_manifest().to_json().encode()
    content = json.loads(data)
    assert data == canonical(content)
    sha256 = content.pop("sha256")
    assert sha256 == hashlib.sha256(canonical(content)).hexdigest()
    assert Manifest.parse(data, "m") == make_manifest()


def test_the_target_travels_and_a_bundle_without_one_keeps_its_bytes() -> None:
    plain = make_manifest()
    assert plain.provenance.target is None
    assert '"target"' not in plain.to_json()
    for_orin = Manifest.of(
        plain.files, plain.models, plain.provenance.model_copy(update={"target": "jetson-orin"})
    )
    assert Manifest.parse(for_orin.to_json().encode(), "m").provenance.target == "jetson-orin"
    with pytest.raises(BundleError, match="target"):
        Manifest.parse(altered(lambda content: content["provenance"].update(target="\x1b[2J")), "m")


def test_files_come_behind_those_that_they_are_checked_by() -> None:
    manifest = make_manifest("model.fp32.onnx.data")
    assert manifest.order == (
        *("spec.json", "labels.txt", "calibration.json", "golden.npz"),
        *("model.fp32.onnx", "model.fp32.onnx.data", "model.int8.onnx"),
    )
    assert manifest.size == 21
    assert manifest.precisions == ("fp32", "int8")
    assert manifest.has_weights_file("fp32")
    assert not manifest.has_weights_file("int8")


@pytest.mark.parametrize(
    "name",
    [
        *("../secret", "/etc/passwd", "sub/model.fp32.onnx", "..", ".", "", "manifest.json", "model.fp32.onnx\n"),
        *("SPEC.JSON", "Model.fp32.onnx", "model.FP32.onnx", "model..onnx", "model.fp32.onnx.data.data"),
        *("model.fp32.onnx.data\0", "..\\model.fp32.onnx", "C:\\spec.json", "spec.json\u200b", "ｍodel.fp32.onnx"),
        *("model.fp٣٢.onnx", "model.fp32.onnx/../x", f"model.{'f' * 33}.onnx", "con", "golden.npz:stream"),
    ],
)
def test_names_that_no_bundle_has(name: str) -> None:
    assert size_limit(name) is None
    with pytest.raises(BundleError, match="not a bundle file") as caught:
        Manifest.parse(altered(lambda m: m["files"].update({name: m["files"]["spec.json"]})), "m")
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["files"].pop("spec.json"), r"not list spec\.json"),
        (lambda m: m["files"].pop("labels.txt"), r"not list labels\.txt"),
        (lambda m: m["files"].pop("golden.npz"), r"not list golden\.npz"),
        (lambda m: m["files"].pop("calibration.json"), r"lists model\.int8\.onnx without calibration\.json"),
        (lambda m: m["files"].pop("model.fp32.onnx"), "models and files.*'fp32'"),
        (lambda m: m["models"].pop("fp32"), "models and files.*'fp32'"),
        (lambda m: m.update(models={}), "models: must have at least 1 items"),
        (lambda m: m["models"]["fp32"].pop("producer"), "models.fp32.producer: is required"),
        (
            lambda m: m["files"].update({"model.fp8.onnx.data": m["files"]["spec.json"]}),
            r"without model\.fp8\.onnx",
        ),
        (lambda m: m.update(surprise=1), "surprise: unknown key"),
        (lambda m: m.update({"two\nlines\x1b[2J": 1}), r"two\\nlines\\x1b\[2J: unknown key"),
        (lambda m: m["provenance"].update(seed="many"), "provenance.seed"),
        (lambda m: m["files"]["spec.json"].update(sha256="abc"), r"files\.spec\.json\.sha256"),
        (lambda m: m["files"]["spec.json"].update(size=-1), r"files\.spec\.json\.size"),
        (lambda m: m["files"]["spec.json"].update(size=10**10), r"spec\.json has 10,000,000,000 bytes"),
        (
            lambda m: m["files"]["model.fp32.onnx"].update(size=1 << 31),
            r"model\.fp32\.onnx has 2,147,483,648 bytes",
        ),
        (lambda m: m["files"]["golden.npz"].update(size=10**30), "31 digits"),
        (lambda m: m["files"]["golden.npz"].update(size=1e300), "size"),
    ],
)
def test_what_describes_no_bundle(change: Callable[[dict], object], message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        Manifest.parse(altered(change), "m")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_the_sum_is_bounded() -> None:
    def grow(manifest: dict) -> None:
        for index in range(3):
            for name in (f"model.x{index}.onnx", f"model.x{index}.onnx.data"):
                manifest["files"][name] = {"sha256": "0" * 64, "size": MAX_TOTAL // 3 if "data" in name else 9}
            manifest["models"][f"x{index}"] = {"producer": "x"}

    with pytest.raises(BundleError, match=r"17,179,869,\d+ bytes.* 17,179,869,184"):
        Manifest.parse(altered(grow), "m")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (3, r"schema version 3.* 2\..*pip install --upgrade"),
        (999, "schema version 999"),
        (1, "unsupported schema version.* 2"),
        ("2", "unsupported schema version"),
        (2.0, "unsupported schema version"),
        (True, "unsupported schema version"),
        (None, "unsupported schema version"),
    ],
)
def test_other_versions(version: object, message: str) -> None:
    """Said before anything else of it is looked at: the next version may look altogether different."""
    for data in (
        altered(lambda m: m.update(schema_version=version)),
        json.dumps({"schema_version": version}).encode(),
    ):
        with pytest.raises(BundleError, match=message):
            Manifest.parse(data, "m")


def test_no_byte_of_it_can_change(tmp_path: Path) -> None:
    data = make_manifest().to_json().encode()
    for position in range(len(data)):
        for bit in (0, 5):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(BundleError):
                Manifest.parse(bytes(changed), "m")


@pytest.mark.parametrize(
    "spell",
    [
        lambda data: data.rstrip(),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data + b"\n",
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: data.decode().encode("utf-16"),
        lambda data: data.replace(b'"seed": 0', b'"seed": -0'),
        lambda data: data.replace(b'"seed": 0', b'"seed": 0,\n    "seed": 0'),
        lambda data: data.replace(b'"mine"', rb'"\u006dine"'),
        lambda data: data.replace(b'"mine"', rb'"\ud800"'),
        lambda data: b"[]",
        lambda data: b"null",
        lambda data: b"",
        lambda data: b'{"a":' * 10_000,
        lambda data: b'{"schema_version": 2, "a": ' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_other_spellings(spell: Callable[[bytes], bytes]) -> None:
    data = make_manifest().to_json().encode()
    assert spell(data) != data
    with pytest.raises(BundleError) as caught:
        Manifest.parse(spell(data), "m")
    assert "\n" not in str(caught.value)


def test_every_file_fits_a_plain_tar() -> None:
    for name in (*NAMES, "model.fp32.onnx.data"):
        limit = size_limit(name)
        assert limit is not None
        assert limit <= MAX_SIZE


@pytest.mark.parametrize(
    ("precision", "needed"),
    [
        ("fp32", False),
        ("fp16", False),
        ("bf16", False),
        ("int8", True),
        ("uint8", True),
        ("fp8", True),
        ("int4", True),
    ],
)
def test_what_needs_a_calibration(precision: str, needed: bool) -> None:
    assert needs_calibration(precision) is needed
