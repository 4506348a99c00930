"""What a machine can do, what it cannot, and the command for the rest: from the findings of all checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from dskd_export import codes
from dskd_export.codes import Code, plain
from dskd_export.doctor.finding import Finding
from dskd_export.documents.base import Document


class Summary(Document):
    """The findings in three lines."""

    can: list[str]
    cannot: dict[str, str] = Field(description="what -> why not")
    rest: str = Field(description="command, or what else is needed; empty: nothing is missing")

    def lines(self) -> list[str]:
        """Write the three lines for the terminal."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.cannot.items():
            by_reason.setdefault(reason, []).append(name)
        cannot = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
        return [
            f"Can: {'; '.join(self.can) or 'nothing'}.",
            f"Cannot: {cannot or 'nothing is missing'}.",
            f"For the rest: {self.rest or 'nothing is needed'}",
        ]


@dataclass(frozen=True)
class _Capability:
    """Something that the tool does.

    Attributes:
        needs: checks that have to be fine.
        either: checks of which one has to be fine.
        gpu: needs an NVIDIA GPU.
        provider: of ONNX Runtime that has to run.
    """

    name: str
    needs: tuple[Code, ...]
    either: tuple[Code, ...] = ()
    gpu: bool = False
    provider: str | None = None


_TRAIN = (codes.TORCH, codes.TORCHVISION, codes.TIMM, codes.SAFETENSORS, codes.SCIKIT_LEARN)
_RUN = (codes.ONNXRUNTIME, codes.ORT_IMPORT)
_EXPORT = (*_TRAIN, codes.ONNX, codes.ONNXSCRIPT, *_RUN)

_CAPABILITIES = (
    _Capability("train on the CPU", _TRAIN),
    _Capability("train on the GPU", _TRAIN, gpu=True),
    _Capability("export fp32", _EXPORT),
    _Capability("export int8 for a CPU", _EXPORT),
    _Capability("export fp16", _EXPORT, either=(codes.MODELOPT, codes.ONNXCONVERTER)),
    _Capability("export bf16, fp8 and int8 for a GPU", (*_EXPORT, codes.MODELOPT)),
    _Capability("validate and benchmark on the CPU", _RUN),
    _Capability("validate and benchmark on the GPU", _RUN, gpu=True, provider="cuda"),
    _Capability("build TensorRT engines", (codes.TENSORRT,), gpu=True),
)
_EXTRA_OF_CODE = {
    **dict.fromkeys(_TRAIN, "train"),
    **dict.fromkeys((codes.ONNX, codes.ONNXSCRIPT, *_RUN), "onnx"),
    **dict.fromkeys((codes.MODELOPT, codes.ONNXCONVERTER), "quant"),
    codes.TENSORRT: "tensorrt",
}


def summarise(findings: Sequence[Finding]) -> Summary:
    """Summarise the findings of `diagnose`: what this machine can do, what not, and what that takes."""
    state = _State(findings)
    lacks = {capability.name: state.explain(capability) for capability in _CAPABILITIES}
    cannot = {name: lack for name, lack in lacks.items() if lack is not None}
    extras = dict.fromkeys(extra for lack in cannot.values() for extra in lack.extras)
    rest = [f"pip install 'dskd-compress[{','.join(extras)}]'"] if extras else []
    rest += dict.fromkeys(lack.cure for lack in cannot.values() if lack.cure)
    return Summary(
        can=[name for name in lacks if name not in cannot],
        cannot={name: lack.reason for name, lack in cannot.items()},
        rest="; ".join(rest),
    )


@dataclass(frozen=True)
class _Lack:
    """Why something cannot be done, the extras that bring it, and what else to do."""

    reason: str
    extras: tuple[str, ...] = ()
    cure: str | None = None


_NO_GPU = _Lack("no NVIDIA GPU", cure="a machine with an NVIDIA GPU and its driver")


class _State:
    """Which checks are fine, and why the others are not."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.fine = {one.number: one for one in findings if one.level == "ok"}
        self.wrong = {one.number: one for one in findings if one.level != "ok"}

    def list_found(self, code: Code) -> tuple[str, ...]:
        return self.fine[code.number].found if code.number in self.fine else ()

    def explain(self, capability: _Capability) -> _Lack | None:
        """Explain why something cannot be done; None: it can."""
        lacks = [(code, self._explain_check(code)) for code in capability.needs]
        either = [(code, self._explain_check(code)) for code in capability.either]
        if all(reason is not None for _, reason in either):
            lacks += either[:1]
        missing = {code: reason for code, reason in lacks if reason is not None}
        if missing:
            extras = dict.fromkeys(_EXTRA_OF_CODE[code] for code in missing)
            return _Lack(next(iter(missing.values())), tuple(extras))
        return self._explain_gpu(capability) if capability.gpu else None

    def _explain_check(self, code: Code) -> str | None:
        """Explain why a check is not fine; None: it is."""
        if code.number in self.wrong:
            return self.wrong[code.number].what
        if code is codes.TENSORRT and not self.list_found(code):
            return "TensorRT is not installed"  # which is fine, as it is optional
        return None if code.number in self.fine else code.title

    def _explain_gpu(self, capability: _Capability) -> _Lack | None:
        builds = capability.needs == (codes.TENSORRT,)
        if builds and "tensorrt_rtx" in self.list_found(codes.TENSORRT):
            return None  # TensorRT for RTX builds without a GPU
        if not self.list_found(codes.GPU):
            return _NO_GPU
        if capability.needs == _TRAIN and any(one.endswith("+cpu") for one in self.list_found(codes.TORCH)):
            return _Lack("torch is the CPU build", cure="pip install torch torchvision, of a CUDA build")
        if capability.provider not in (None, *self.list_found(codes.ORT_IMPORT)):
            reason = f"ONNX Runtime has no provider {capability.provider} here"
            return _Lack(reason, cure=plain(codes.ORT_CPU_ONLY.cure))
        return None
