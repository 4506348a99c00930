"""The run folder: the only owner of artifact names, hashes and the state of stages.

recipe.yaml              the resolved recipe
teacher.safetensors      teacher.json  teacher.train.jsonl     (only where the recipe trains one)
teacher_probe.safetensors                                      (only where the recipe fits one)
student.safetensors      distill.json  train.jsonl
checkpoint/teacher|student/                                    what an interrupted training resumes from
earlier/<number>/                                              trainings that others have replaced
teacher_cache/                                                 outputs of the teacher, where the recipe keeps them
trackers/                                                      files of TensorBoard, wandb, mlflow, where requested
bundle/  export.json     teacher.fp32.onnx                     the deliverable, and the teacher to compare it with
validation.json  benchmark.json  benchmark.samples.npz  report.html  report.md  report.csv
MODEL_CARD.md            engines/<device>/                      for the Hub; from build
stages/<stage>.json      what each stage read and wrote, by sha256
.dskd-compress.lock      the process that writes to the folder
"""

from __future__ import annotations

from dskd_compress.names import BENCHMARK, DISTILL, EXPORT, REPORT, STAGE_NAMES, TRAIN, TUNE, VALIDATE
from dskd_compress.run_folder.folder import RunFolder, recipe_sha256, writes_run
from dskd_compress.run_folder.resolve import names_a_run, refuse_image_folder, resolve_run
from dskd_compress.run_folder.stages import (
    MODEL_CARD,
    STAGES,
    TEACHER_PROBE,
    Stage,
    find_stage,
    list_stages,
    name_tuned_weights,
)
from dskd_export.files.json_text import digest

__all__ = [
    "BENCHMARK",
    "DISTILL",
    "EXPORT",
    "MODEL_CARD",
    "REPORT",
    "STAGES",
    "STAGE_NAMES",
    "TEACHER_PROBE",
    "TRAIN",
    "TUNE",
    "VALIDATE",
    "RunFolder",
    "Stage",
    "digest",
    "find_stage",
    "list_stages",
    "name_tuned_weights",
    "names_a_run",
    "recipe_sha256",
    "refuse_image_folder",
    "resolve_run",
    "writes_run",
]
