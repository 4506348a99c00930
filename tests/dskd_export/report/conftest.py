"""A run folder as the stages write it, with plausible figures and real hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_document_support import LAYERS, make_export_document, make_int8, make_search
from numpy.typing import NDArray
from report_matrix import make_matrix
from sklearn.datasets import load_digits

from dskd_export.documents.base import (
    Accuracy,
    DataFacts,
    DeviceFacts,
    Document,
    Interval,
    Provenance,
    StageRecord,
)
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, Latency
from dskd_export.documents.mistakes import Mistakes
from dskd_export.documents.training import EpochRecord, ModelFacts, StepRecord, TapFacts, TrainingDocument
from dskd_export.documents.validation import (
    Check,
    ClassDrop,
    Judgement,
    PairedAccuracy,
    Parity,
    PreprocessParity,
    StudentJudgement,
    ValidationDocument,
)
from dskd_export.spec import ModelSpec
from dskd_export.validation.judgement import TeacherOutputs, judge_student
from dskd_export.validation.mistakes import MistakeSearch, find_mistakes
from dskd_export.validation.verdicts import conclude, reason_of

STEPS_PER_EPOCH = 45


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wilson(right: int, images: int) -> Interval:
    z = 1.959964
    p = right / images
    centre = (p + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * np.sqrt(p * (1 - p) / images + z * z / (4 * images**2))
    return Interval(value=p, low=float(centre - half), high=float(centre + half))


def accuracy(right: int, images: int = 360) -> Accuracy:
    return Accuracy(top1=wilson(right, images), top5=wilson(images - 1, images), images=images)


def paired(lost: int, gained: int, images: int = 360, worst: bool = False) -> PairedAccuracy:
    drop = (lost - gained) / images
    return PairedAccuracy(
        images=images,
        lost=lost,
        gained=gained,
        top1_drop=Interval(value=drop, low=drop - 0.0106, high=drop + 0.0158),
        mcnemar_p=0.375 if lost else 1.0,
        agreement=wilson(images - lost - gained, images),
        worst_class=ClassDrop(
            name="7", images=36, lost=2, gained=0, drop=Interval(value=2 / 36, low=-0.045, high=0.181)
        )
        if worst
        else None,
        largest_class_images=3,
        reference_calibration_error=0.0121,
        calibration_error=0.0174,
    )


@dataclass
class RunWriter:
    """Writes a run folder. Change an attribute before `write` to plan another one."""

    folder: Path
    seed: int = 0
    classes: list[str] = field(default_factory=lambda: [str(digit) for digit in range(10)])
    teacher_epochs: int = 12
    student_epochs: int = 30
    gate_passes: bool = True
    precisions: bool = False  # more than fp32
    stable: bool = True
    images: int = 360
    student_right: int = 352
    teacher_right: int = 356
    commonest: int = 40  # images of the commonest class
    student_drop: float = 0.05
    photos: bool = True
    train_right: float = 0.995  # of the training images
    start: str = "random"
    commands: dict[str, str] = field(default_factory=dict)

    def write(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rng = np.random.default_rng(self.seed)
        self._teacher()
        self._distill()
        self._export()
        self._validate()
        self._benchmark()
        return self.folder

    def provenance(self, stage: str, minute: int, seconds: float) -> Provenance:
        return Provenance(
            command=self.commands.get(stage, f"dskd-compress {stage} runs/digits"),
            started_at=f"2026-03-14T09:{minute:02d}:07Z",
            seconds=seconds,
            seed=self.seed,
            commit="3f9c2a7d5be1460f8a7c9d20e4b1735f6a8d9c01+dirty",
            versions={
                "python": "3.11.9",
                "torch": "2.13.0",
                "timm": "1.0.31",
                "onnxruntime": "1.24.1",
                "numpy": "2.3.1",
            },
            device=DeviceFacts(
                device="cpu",
                cpu="AMD EPYC 7B13 (Zen 3)",
                cores=2,
                memory_gb=15.6,
                platform="Linux-6.1-x86_64",
                governor=None,
            ),
            recipe_sha256=sha(b"recipe"),
        )

    def data(self) -> DataFacts:
        return DataFacts(
            source="digits",
            sha256=sha(b"digits"),
            sha256_of="content",
            train_images=1437,
            val_images=360,
            classes=self.classes,
        )

    @property
    def teacher_model(self) -> ModelFacts:
        return ModelFacts(
            name="resnet18",
            parameters=11_181_642,
            macs=37_220_352,
            size_mb=44.78,
            input_size=(3, 32, 32),
            weights="trained in this run, epoch 10",
            sha256=sha(b"teacher"),
        )

    @property
    def student_model(self) -> ModelFacts:
        return ModelFacts(
            name="mobilenetv3_small_050",
            parameters=575_114,
            macs=612_480,
            size_mb=2.38,
            input_size=(3, 32, 32),
            weights="from scratch",
            sha256=sha(b"student"),
        )

    def bytes(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def document(self, name: str, document: Document) -> None:
        self.bytes(name, (document.model_dump_json(indent=2) + "\n").encode())

    def stage(self, stage: str, inputs: list[str], outputs: list[str], provenance: Provenance) -> None:
        def digest(name: str) -> str:
            return sha((self.folder / name).read_bytes())

        record = StageRecord(
            stage=stage,
            settings_sha256={stage: sha(stage.encode()), "seed": sha(b"0")},
            inputs={name: digest(name) for name in inputs} | {"data": sha(b"digits")},
            outputs={name: digest(name) for name in outputs},
            provenance=provenance,
        )
        self.document(f"stages/{stage}.json", record)

    def history(
        self, name: str, epochs: int, terms: dict[str, float], monitors: dict[str, float], top: float
    ) -> None:
        lines = []
        total = epochs * STEPS_PER_EPOCH
        for step in range(1, total + 1):
            done = step / total
            noise = self._rng.lognormal(0, 0.25, len(terms))
            losses = {
                key: float(scale * (0.06 + np.exp(-5 * done)) * jitter)
                for (key, scale), jitter in zip(terms.items(), noise, strict=True)
            }
            record = StepRecord(
                step=step,
                epoch=(step - 1) // STEPS_PER_EPOCH,
                losses={"loss": sum(losses.values())} | losses,
                grad_norm=float(2.1 * np.exp(-2 * done) * noise[0]),
                learning_rate=float(0.025 * (1 + np.cos(np.pi * done))),
                images_per_s=812.0,
                monitors={
                    key: float(level * (1 - 0.8 * np.exp(-6 * done)) + 0.02 * self._rng.normal())
                    for key, level in monitors.items()
                },
            )
            lines.append(record.model_dump_json())
            if step % STEPS_PER_EPOCH == 0:
                epoch = record.epoch
                share = top * (1 - 0.75 * np.exp(-0.35 * (epoch + 1))) + 0.004 * self._rng.normal()
                lines.append(
                    EpochRecord(
                        epoch=epoch,
                        step=step,
                        train_loss=record.losses["loss"],
                        val_loss=record.losses["loss"] * 1.15,
                        top1=float(min(share, 1.0)),
                        top5=0.999,
                        best=epoch == epochs - 2,
                        seconds=1.9,
                    ).model_dump_json()
                )
        self.bytes(name, ("\n".join(lines) + "\n").encode())

    def _teacher(self) -> None:
        self.history("teacher.train.jsonl", self.teacher_epochs, {"ce": 2.3}, {}, 0.985)
        provenance = self.provenance("train", 0, 41.5)
        self.document(
            "teacher.json",
            TrainingDocument(
                role="teacher",
                method="none",
                method_settings={},
                model=self.teacher_model,
                epochs=self.teacher_epochs,
                steps=self.teacher_epochs * STEPS_PER_EPOCH,
                best_epoch=self.teacher_epochs - 2,
                best=accuracy(356),
                last=accuracy(354),
                images_per_s=421.0,
                peak_memory_mb=None,
                data=self.data(),
                provenance=provenance,
            ),
        )
        self.bytes("teacher.safetensors", b"teacher")
        self.stage("train", [], ["teacher.safetensors", "teacher.json", "teacher.train.jsonl"], provenance)

    def _distill(self) -> None:
        terms = {"ce": 2.2, "diffusion": 1.0, "lsh": 1.4, "head": 2.0, "logit": 3.1}
        monitors = {
            "head_agrees_on_denoised": 0.98,
            "head_agrees_on_projected": 0.94,
            "hash_agreement": 0.88,
            "projected_spread": 0.97,
        }
        self.history("train.jsonl", self.student_epochs, terms, monitors, 0.978)
        provenance = self.provenance("distill", 1, 83.2)
        self.document(
            "distill.json",
            TrainingDocument(
                role="student",
                method="dskd",
                method_settings={"preset": "default", "tap": "map", "sample_steps": 5, "lsh_weight": 2.0},
                model=self.student_model,
                teacher=self.teacher_model,
                taps={
                    "teacher": TapFacts(kind="map", channels=512, grid=(1, 1), layout="NCHW"),
                    "student": TapFacts(kind="map", channels=288, grid=(1, 1), layout="NCHW"),
                },
                discarded={"projection": 147_968, "denoiser": 1_213_184, "hash planes": 262_144},
                epochs=self.student_epochs,
                steps=self.student_epochs * STEPS_PER_EPOCH,
                best_epoch=self.student_epochs - 2,
                best=accuracy(self.student_right, self.images),
                last=accuracy(self.student_right - 1, self.images),
                teacher_accuracy=accuracy(self.teacher_right, self.images),
                start=self.start,
                pretrained_exists=True,
                images_per_s=812.0,
                peak_memory_mb=None,
                data=self.data(),
                provenance=provenance,
            ),
        )
        self.bytes("student.safetensors", b"student")
        outputs = ["student.safetensors", "distill.json", "train.jsonl"]
        self.stage("distill", ["teacher.safetensors"], outputs, provenance)

    def _export(self) -> None:
        spec = ModelSpec(
            architecture="mobilenetv3_small_050",
            height=32,
            width=32,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            interpolation="bicubic",
            crop_pct=1.0,
            classes=tuple(self.classes),
            opset=20,
            student_sha256=sha(b"student"),
        )
        self.bytes("bundle/spec.json", spec.to_json().encode())
        self.bytes("bundle/model.fp32.onnx", b"onnx" * 600_000)
        self.bytes("bundle/golden.npz", b"golden")
        files: dict[str, Any] = {}
        for path in sorted((self.folder / "bundle").iterdir()):
            files[path.name] = {"sha256": sha(path.read_bytes()), "size": path.stat().st_size}
        self.bytes("bundle/manifest.json", json.dumps({"schema_version": 1, "files": files}).encode())
        inputs = ["student.safetensors", "teacher.safetensors"]
        provenance = self.provenance("export", 3, 6.1)
        made = [make_int8(("conv_stem",), make_search(LAYERS))] if self.precisions else []
        self.document("export.json", make_export_document(*made, provenance=provenance))
        self.stage("export", inputs, ["bundle/manifest.json", "export.json"], provenance)

    def answers(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Labels, and outputs of student and teacher, with the given counts."""
        images, commonest, classes = self.images, self.commonest, len(self.classes)
        labels = np.array([0] * commonest + [1 + i % (classes - 1) for i in range(images - commonest)])

        def answers(right: int) -> NDArray[np.float64]:
            # The first `right` images get their own class, the others the next one.
            found = np.where(np.arange(images) < right, labels, (labels + 1) % classes)
            return np.eye(classes)[found] * (4 + np.arange(images)[:, None] / images)

        return labels, answers(self.student_right), answers(self.teacher_right)

    def judged_student(self) -> StudentJudgement:
        """The student judged by the real rules."""
        labels, student, teacher = self.answers()
        return judge_student(student, labels, self.data().classes, TeacherOutputs(teacher), self.student_drop)

    def mistakes(self) -> Mistakes:
        """The student's mistakes on pictures of digits, found by the real search."""
        labels, student, teacher = self.answers()
        spec = ModelSpec.read(self.folder / "bundle/spec.json").model_copy(update={"input_dtype": "uint8"})
        drawn = load_digits()
        pixels = (255 / 16 * drawn.images[: self.images]).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
        inputs = np.stack([pixels] * 3, axis=1)
        search = MistakeSearch(spec, photos=self.photos)
        names = [f"val/digit-{index:04}.png" for index in range(self.images)]
        search.observe(inputs, names, labels, student, teacher)
        return find_mistakes(search, "torch:cpu:fp32", student, teacher, labels, self.data().classes)

    def _validate(self) -> None:
        worst = 7.4e-7 if self.gate_passes else 3.2e-3
        verdict: Any = "PASS" if self.gate_passes else "FAIL"
        checks = [
            Check(name="max abs / scale", value=worst, limit=1e-4, comparison="<=", verdict=verdict),
            Check(name="cosine", value=0.99999994, limit=0.9999, comparison=">=", verdict="PASS"),
            Check(
                name="KL", value=2.1e-9, limit=1e-4, comparison="<=", verdict="PASS", detail="nats, worst image"
            ),
            Check(name="top-1 agreement", value=1.0, limit=1.0, comparison=">=", verdict="PASS"),
            Check(name="top-1 drop", value=0.0, limit=0.005, comparison="<=", verdict="PASS"),
        ]
        fp32 = Judgement(
            runner="onnxruntime:cpu:fp32",
            precision="fp32",
            provider="cpu",
            verdict=verdict,
            reason=reason_of(checks),
            native=True,
            computed_in="fp32",
            size_mb=2.4,
            parity=[self._parity("fp32", batch, worst) for batch in (1, 3, 8)],
            accuracy=paired(0, 0),
            checks=checks,
            causes=[] if self.gate_passes else ["model.fp32.onnx: the channels come in the order BGR"],
        )
        right, student = self.student_right, self.judged_student()
        judgements, runners = [fp32], {"torch:cpu:fp32": right, "onnxruntime:cpu:fp32": right}
        if self.precisions:
            judgements += self._other_precisions()
            runners |= {"onnxruntime:cpu:fp16": right, "onnxruntime:cpu:int8": right - 3}
        provenance = self.provenance("validate", 4, 5.4)
        bundle = [
            Check(
                name="pixel difference",
                value=0.0,
                limit=1.0,
                comparison="<=",
                verdict="PASS",
                detail="in 1/255, 0 pixels of 360 images differ",
            )
        ]
        concluded, why = conclude(student, bundle, judgements)
        self.document(
            "validation.json",
            ValidationDocument(
                verdict=concluded,
                reason=why,
                student=student,
                reference="torch:cpu:fp32",
                accuracy={name: accuracy(right, self.images) for name, right in runners.items()},
                judgements=judgements,
                preprocess=PreprocessParity(
                    images=360, max_abs_pixel=0.0, max_abs_normalised=2.4e-7, differing_pixels=0
                ),
                checks=bundle,
                passed=concluded == "PASS",
                mistakes=self.mistakes(),
                training_accuracy=accuracy(round(self.train_right * self.images), self.images),
                data=self.data(),
                bundle_sha256=sha((self.folder / "bundle/manifest.json").read_bytes()),
                provenance=provenance,
            ),
        )
        self.stage("validate", ["bundle/manifest.json", "student.safetensors"], ["validation.json"], provenance)

    def _other_precisions(self) -> list[Judgement]:
        """fp16 that passes and is not computed in fp16, int8 with too few images, bf16 that cannot be run."""
        shown = Check(
            name="top-1 drop",
            value=0.0,
            bound=0.0106,
            limit=0.02,
            comparison="<=",
            verdict="PASS",
            detail="0 of 360 images lost, 0 gained",
        )
        few = shown.model_copy(
            update={
                "value": 3 / 360,
                "bound": 0.0241,
                "verdict": "NOT SHOWN",
                "detail": "3 of 360 images lost net; about 620 would show it",
                "images_needed": 620,
            }
        )
        open_ = Check(
            name="worst class drop",
            value=None,
            limit=0.2,
            comparison="<=",
            verdict="NOT JUDGED",
            detail="no class has 10 images; the largest has 3",
        )
        fp16 = Judgement(
            runner="onnxruntime:cpu:fp16",
            precision="fp16",
            provider="cpu",
            verdict="PASS",
            computed_in="fp32",
            native=False,
            native_reason="computed in fp32 on cpu: 0 of 53 convolutions and matrix products run in fp16",
            size_mb=1.21,
            parity=[self._parity("fp16", 64, 8.1e-4)],
            accuracy=paired(0, 0),
            checks=[shown],
        )
        int8 = Judgement(
            runner="onnxruntime:cpu:int8",
            precision="int8",
            provider="cpu",
            verdict="NOT SHOWN",
            reason=few.detail,
            computed_in="int8",
            native=True,
            native_reason="53 of 53 convolutions and matrix products run in int8",
            size_mb=0.74,
            parity=[self._parity("int8", 64, 0.061)],
            accuracy=paired(4, 1, worst=True),
            checks=[few, open_],
        )
        bf16 = Judgement(
            runner="onnxruntime:cpu:bf16",
            precision="bf16",
            provider="cpu",
            verdict="NOT RUN",
            reason="ONNX Runtime cannot run model.bf16.onnx on cpu",
            size_mb=1.22,
        )
        return [fp16, int8, bf16]

    def _parity(self, precision: str, batch: int, worst: float) -> Parity:
        return Parity(
            reference="torch:cpu:fp32",
            candidate=f"onnxruntime:cpu:{precision}",
            batch=batch,
            images=360,
            max_abs=worst * 21.7,
            output_scale=21.7,
            max_abs_relative=worst,
            mean_abs_relative=worst / 9,
            cosine_min=0.99999994,
            cosine_mean=0.99999998,
            kl_max=2.1e-9,
            kl_mean=1.1e-10,
            top1_agreement=1.0,
            top5_agreement=0.998,
            finite=True,
        )

    def _benchmark(self) -> None:
        rows, samples = [], {}
        for model, base in (("teacher", 3.1), ("student", 0.82)):
            for runner, factor in (("torch", 1.9), ("onnxruntime", 1.0)):
                for batch in (1, 8):
                    for part in ("engine", "with_preprocessing"):
                        extra = 0.31 * batch if part == "with_preprocessing" else 0.0
                        median = base * factor * batch**0.8 + extra
                        calls = int(max(200, 3000 / median))
                        values = median * (1 + 0.03 * self._rng.gamma(1.5, 1.0, calls)) / 1000
                        key = f"{model}.{runner}.b{batch}.{part}"
                        samples[key] = values
                        rows.append(self._row(model, runner, batch, part, values, key))
        rows.append(
            BenchmarkRow(
                model="student",
                runner="onnxruntime",
                provider="cuda",
                precision="fp32",
                batch=1,
                threads=None,
                part="engine",
                latency=None,
                throughput_images_per_s=None,
                unavailable="this ONNX Runtime has no CUDA provider",
            )
        )
        np.savez_compressed(self.folder / "benchmark.samples.npz", **samples)
        provenance = self.provenance("benchmark", 5, 97.0)
        manifest = (self.folder / "bundle/manifest.json").read_bytes()
        document = BenchmarkDocument(rows=rows, bundle_sha256=sha(manifest), provenance=provenance)
        self.document("benchmark.json", document)
        outputs = ["benchmark.json", "benchmark.samples.npz"]
        self.stage("benchmark", ["bundle/manifest.json", "student.safetensors"], outputs, provenance)

    def _row(self, model: Any, runner: str, batch: int, part: Any, seconds: Any, key: str) -> BenchmarkRow:
        ms = 1000 * seconds
        p50, p90, p95, p99, p999 = (float(v) for v in np.percentile(ms, (50, 90, 95, 99, 99.9)))
        unstable = not self.stable and model == "student" and batch == 1
        return BenchmarkRow(
            model=model,
            runner=runner,
            provider="cpu",
            precision="fp32",
            batch=batch,
            threads=2,
            part=part,
            latency=Latency(
                p50_ms=p50,
                p90_ms=p90,
                p95_ms=p95,
                p99_ms=p99,
                p999_ms=p999,
                mean_ms=float(ms.mean()),
                min_ms=float(ms.min()),
                max_ms=float(ms.max()),
                coefficient_of_variation=float(ms.std() / ms.mean()),
                iterations=len(ms),
                warmup_iterations=60,
                stable=not unstable,
                reason="the rate drifted by 14 % after the warm-up" if unstable else "",
            ),
            throughput_images_per_s=batch / float(ms.mean()) * 1000,
            load_ms=18.4,
            first_inference_ms=p99 * 3,
            samples_key=key,
        )


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a separate run folder for a test; keyword arguments are attributes of `RunWriter`."""

    def make(**settings: Any) -> Path:
        return RunWriter(tmp_path / "run", **{"teacher_epochs": 3, "student_epochs": 4, **settings}).write()

    return make


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One complete run of realistic length; read only."""
    return RunWriter(tmp_path_factory.mktemp("report") / "digits").write()


@pytest.fixture(scope="session")
def precise_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with four precisions; read only."""
    return RunWriter(tmp_path_factory.mktemp("precise") / "run", precisions=True, student_epochs=4).write()


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs of four methods, and the results of each on two devices in three precisions; read only."""
    return make_matrix(
        lambda folder: RunWriter(folder, precisions=True).write(), tmp_path_factory.mktemp("matrix")
    )
