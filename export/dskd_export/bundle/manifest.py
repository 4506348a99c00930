"""`manifest.json`: what files a bundle has, what made its models, and where they come from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from dskd_export.bundle.calibration import Sha256
from dskd_export.bundle.strict_json import canonical_json, load_document, load_json
from dskd_export.documents.base import Document
from dskd_export.errors import BundleError
from dskd_export.files.atomic import sha256_bytes
from dskd_export.files.json_text import one_line

# By number and not by what Python calls printable: that grows with every version of Unicode.
_ESCAPED = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def labels_text(classes: Sequence[str]) -> str:
    r"""The file's text: `line one\nline two` for a class whose name holds a line break.

    Args:
        classes: names in the order of the logits; any text.
    """
    return "".join(_ESCAPED.sub(lambda sign: repr(sign[0])[1:-1], name) + "\n" for name in classes)


SCHEMA_VERSION = 2

MANIFEST = "manifest.json"
SPEC = "spec.json"
LABELS = "labels.txt"
CALIBRATION = "calibration.json"
GOLDEN = "golden.npz"
_REQUIRED = (SPEC, LABELS, GOLDEN)

# Largest sizes in bytes. An ONNX file is a protobuf, which ends at 2 GB; a plain tar ends at 8 GB a file.
MAX_MANIFEST = 1 << 20
MAX_TOTAL = 16 << 30
_MAX_SIZE = {SPEC: 4 << 20, LABELS: 4 << 20, CALIBRATION: 8 << 20, GOLDEN: 1 << 30}
_MAX_MODEL = (2 << 30) - 1
_MAX_WEIGHTS = (8 << 30) - 1

PRECISION = re.compile(r"[a-z0-9]{1,32}")
_MODEL = re.compile(rf"model\.({PRECISION.pattern})\.onnx")
_WEIGHTS = re.compile(rf"(model\.{PRECISION.pattern}\.onnx)\.data")
_CALIBRATED = re.compile(r"(u?int|fp)[48]")
_ABSOLUTE = re.compile(r"[/~]|[A-Za-z]:[\\/]")

_EXPORT_AGAIN = "Export it again: dskd-compress export"


def model_name(precision: str) -> str:
    """Name the ONNX file of a precision."""
    return f"model.{precision}.onnx"


def weights_name(model: str) -> str:
    """Name the file that holds the weights of an ONNX file where they do not fit into the protobuf."""
    return f"{model}.data"


def needs_calibration(precision: str) -> bool:
    """Whether making this precision needs calibration images: int8, fp8, int4, fp4."""
    return _CALIBRATED.match(precision) is not None


def size_limit(name: str) -> int | None:
    """Limit the size in bytes of a bundle file; None: a bundle has no file of that name."""
    if name in _MAX_SIZE:
        return _MAX_SIZE[name]
    if _MODEL.fullmatch(name):
        return _MAX_MODEL
    return _MAX_WEIGHTS if _WEIGHTS.fullmatch(name) else None


class FileFacts(Document):
    """One file of a bundle."""

    sha256: Sha256
    size: int = Field(ge=0, description="bytes")


class ModelFacts(Document):
    """What made the model of one precision."""

    producer: str = Field(min_length=1, description="the tool that made it, with its version")
    details: dict[str, Any] = Field(
        default_factory=dict, description="its settings and findings; no absolute paths"
    )


class LicenseFacts(Document):
    """The licence of some weights, as far as it is known."""

    name: str | None = Field(description="SPDX name or text; None: unknown")
    source: str = Field(min_length=1, description="where the name comes from; why it is unknown")


class Licenses(Document):
    """Licences of the weights in the bundle, and of those that they were made from."""

    weights: LicenseFacts = Field(description="of the exported student")
    student_start: LicenseFacts = Field(description="of what the student's training started from")
    teacher: LicenseFacts


class BundleProvenance(Document):
    """Where the models come from. Nothing in it depends on the day, the folder or the machine."""

    student: str = Field(description="timm architecture")
    student_sha256: Sha256 = Field(description="of student.safetensors")
    teacher: str | None = Field(description="timm architecture, or hf-hub name; None: no teacher")
    teacher_weights: str | None = Field(description="where they come from")
    method: str
    recipe: str
    recipe_sha256: Sha256
    seed: int
    data_sha256: str
    versions: dict[str, str] = Field(description="package -> version, of the export")
    licenses: Licenses
    target: str | None = Field(
        default=None, pattern="^[a-z0-9-]{1,32}$", description="what the models are for; None: not recorded"
    )

    @model_serializer(mode="wrap")
    def _leave_out_unknown(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Bundles from before targets were recorded keep their bytes."""
        return {key: value for key, value in serialize(self).items() if key != "target" or value is not None}


class Manifest(Document):
    """The whole of `manifest.json`; make one with `of`."""

    schema_version: Literal[2] = 2
    files: dict[str, FileFacts] = Field(description="every file of the bundle but the manifest itself")
    models: dict[str, ModelFacts] = Field(min_length=1, description="precision -> what made it")
    provenance: BundleProvenance
    sha256: Sha256 = Field(description="of this document's canonical JSON without this line")

    @classmethod
    def of(
        cls, files: Mapping[str, FileFacts], models: Mapping[str, ModelFacts], provenance: BundleProvenance
    ) -> Manifest:
        """Sum up a bundle.

        Raises:
            ValueError: a text in it is an absolute path, or a number in it is not finite.
        """
        content = {
            "schema_version": SCHEMA_VERSION,
            "files": {name: facts.model_dump() for name, facts in files.items()},
            "models": {name: facts.model_dump() for name, facts in models.items()},
            "provenance": provenance.model_dump(),
        }
        check_no_absolute_paths(content, "manifest")
        return cls.model_validate({**content, "sha256": _sha256_of(content)})

    def to_json(self) -> str:
        """Canonical JSON: the same manifest gives the same bytes."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, data: bytes, where: str) -> Manifest:
        """Read a manifest and check all that it says about itself.

        Raises:
            BundleError: it is of another version, altered, or does not describe a bundle.
        """
        content = load_json(data, where)
        if not isinstance(content, dict):
            raise BundleError(f"{where}: not a JSON object.", _EXPORT_AGAIN)
        _check_version(content.get("schema_version"), where)
        if not _is_unaltered(content, data):
            raise BundleError(f"{where} was altered: its own sha256 differs.", "Copy or export it again.")
        manifest = load_document(data, cls, where)
        manifest._check(where)
        return manifest

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions there are, sorted, for example `("fp16", "fp32")`."""
        return tuple(sorted(self.models))

    @property
    def order(self) -> tuple[str, ...]:
        """All files but the manifest, each behind those that it is checked by."""
        first = [name for name in (SPEC, LABELS, CALIBRATION, GOLDEN) if name in self.files]
        return (*first, *sorted(self.files.keys() - set(first)))

    @property
    def size(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(facts.size for facts in self.files.values())

    def has_weights_file(self, precision: str) -> bool:
        """Whether a model has a separate weights file."""
        return weights_name(model_name(precision)) in self.files

    def _check(self, where: str) -> None:
        for name, facts in self.files.items():
            # These are the only names a bundle has, so none can lead out of its folder, and no two are
            # one on a case-insensitive file system.
            limit = size_limit(name)
            if limit is None:
                raise BundleError(f"{where} names '{one_line(name)}', which is not a bundle file.", _EXPORT_AGAIN)
            if facts.size > limit:
                raise BundleError(
                    f"{where}: {name} has {facts.size:,} bytes; at most {limit:,} are read.",
                    "Do not use this bundle.",
                )
        if self.size > MAX_TOTAL:
            raise BundleError(
                f"{where}: the bundle has {self.size:,} bytes; at most {MAX_TOTAL:,} are read.",
                "Do not use this bundle.",
            )
        models = {match[1] for name in self.files if (match := _MODEL.fullmatch(name))}
        if missing := [name for name in _REQUIRED if name not in self.files]:
            raise BundleError(f"{where} does not list {missing[0]}.", _EXPORT_AGAIN)
        if models != self.models.keys():
            odd = sorted(models ^ self.models.keys())[0]
            raise BundleError(f"{where} models and files differ: '{one_line(odd)}' is not in both.", _EXPORT_AGAIN)
        for name in self.files:
            if (match := _WEIGHTS.fullmatch(name)) and match[1] not in self.files:
                raise BundleError(f"{where} names {name} without {match[1]}.", _EXPORT_AGAIN)
        uncalibrated = [name for name in self.precisions if needs_calibration(name)]
        if uncalibrated and CALIBRATION not in self.files:
            raise BundleError(
                f"{where} lists {model_name(uncalibrated[0])} without {CALIBRATION}.",
                "Export it again with its calibration.",
            )


def check_no_absolute_paths(value: Any, where: str) -> None:
    """Refuse absolute paths in a JSON value: a bundle must not reveal where it was made.

    Raises:
        ValueError: an absolute path; names its place.
    """
    for place, text in _strings(value, where):
        if _ABSOLUTE.match(text):
            raise ValueError(f"{place}: absolute path {text}")


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, with its place."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _strings(item, f"{where}[{index}]")


def _sha256_of(content: Mapping[str, Any]) -> str:
    return sha256_bytes(canonical_json(content).encode())


def _is_unaltered(content: Mapping[str, Any], data: bytes) -> bool:
    """Byte for byte: a manifest has one spelling, and no bit of it can change unseen."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    try:
        return content.get("sha256") == _sha256_of(rest) and canonical_json(content).encode() == data
    except (ValueError, RecursionError):  # half a character, or nested more deeply than can be written
        return False


def _check_version(version: Any, where: str) -> None:
    if version == SCHEMA_VERSION and isinstance(version, int):
        return
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{where} has schema version {version}; this dskd-compress reads up to {SCHEMA_VERSION}.",
            "Update it: pip install --upgrade dskd-compress",
        )
    raise BundleError(f"{where}: unsupported schema version; supported: {SCHEMA_VERSION}.", _EXPORT_AGAIN)
