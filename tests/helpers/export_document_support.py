"""Documents that are made up: provenances, and an `export.json` of a bundle with more than fp32."""

from __future__ import annotations

from dskd_export.documents.base import DeviceFacts, Provenance
from dskd_export.documents.export import ExportDocument, LayerSensitivity, PrecisionFacts, ScoreFacts, SearchFacts

PROVENANCE = Provenance(
    command="dskd-compress export runs/digits",
    started_at="2026-03-14T09:03:07Z",
    seconds=6.1,
    seed=0,
    commit=None,
    versions={"onnx": "1.23.2"},
    device=DeviceFacts(
        device="cpu", cpu="AMD EPYC 7B13 (Zen 3)", cores=2, memory_gb=15.6, platform="Linux", governor=None
    ),
    recipe_sha256="b" * 64,
)


def make_provenance(command: str, cpu: str = "a CPU") -> Provenance:
    """Of a command on a machine with two cores."""
    return PROVENANCE.model_copy(
        update={
            "command": command,
            "versions": {},
            "device": DeviceFacts(device="cpu", cpu=cpu, cores=2, memory_gb=8.0, platform="Linux"),
            "recipe_sha256": "0" * 64,
        }
    )


def make_search(layers: list[LayerSensitivity], good: bool = True) -> SearchFacts:
    """A search that brought five points back."""
    return SearchFacts(
        images=64,
        before=ScoreFacts(kl=0.2, agreement=0.8, top1_drop=0.05),
        after=ScoreFacts(kl=0.001, agreement=1.0, top1_drop=0.0),
        good=good,
        layers=layers,
        evaluations=9,
        seconds=12.4,
    )


def make_export_document(*made: PrecisionFacts, provenance: Provenance = PROVENANCE) -> ExportDocument:
    """For a CPU, calibrated on 128 images."""
    return ExportDocument(
        target="cpu",
        precisions=list(made),
        calibration_images=128 if made else None,
        left_out_images=2 if made else None,
        bundle_sha256="a" * 64,
        provenance=provenance,
    )


def make_int8(kept: tuple[str, ...] = (), search: SearchFacts | None = None) -> PrecisionFacts:
    """An int8 model of 3.5 MB."""
    return PrecisionFacts(
        precision="int8",
        producer="a tool 1.0 max",
        opset=20,
        rest="fp32",
        size_mb=3.5,
        kept=list(kept),
        search=search,
        seconds=21.0,
    )


# A layer that was put back, a group that costs next to nothing, and more of them than a table shows at once.
LAYERS = [
    LayerSensitivity(nodes=["conv_stem"], kl=0.17, kept=True),
    *(LayerSensitivity(nodes=[f"conv_{index}"], kl=0.01 / (index + 1), kept=False) for index in range(12)),
    LayerSensitivity(nodes=["fc_1", "fc_2", "classifier"], kl=0.0001, kept=False),
]
