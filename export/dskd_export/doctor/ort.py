"""Check that ONNX Runtime imports, and which of its providers load."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from dskd_export import codes
from dskd_export.codes import Code
from dskd_export.doctor.finding import DoesNotImport, Finding, Level, Purpose, make_finding, run_script
from dskd_export.runtime.provider_problems import Build, Problem, find_problems
from dskd_export.runtime.providers import PROVIDERS, Provider
from dskd_export.telemetry.cuda import Gpu

IMPORT = (
    "import json, onnxruntime as o; print(json.dumps([o.__version__, o.get_available_providers(), o.__file__]))"
)


def check_onnxruntime(purpose: Purpose | None, asked: str | None, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Check that it imports, and what keeps each provider from running.

    Args:
        purpose: what must work.
        asked: the provider that must run; problems of others are warnings.
        gpus: devices that the driver lists.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return
    level: Level = "error" if purpose in ("export", "benchmark") or asked is not None else "warning"
    try:
        version, providers, file = run_script(IMPORT)
    except DoesNotImport as error:
        yield make_finding(codes.ORT_IMPORT, level, f"onnxruntime cannot be imported: {error}")
        return
    build = Build(version, tuple(providers), Path(file).parent / "capi")
    loading, problems = [], list[tuple[Problem, Level]]()
    for provider in PROVIDERS.values():
        found = find_problems(provider, build, gpus)
        if not found:
            loading.append(provider.name)
        elif provider.name == asked:
            problems += [(problem, "error") for problem in found]
        elif gpus and provider.ort_name in build.providers:
            # Without a GPU, or without the provider in the build, it is not expected to run.
            problems += [(problem, "warning") for problem in found]
    what = f"onnxruntime {version} imports; providers that run: {', '.join(loading)}"
    yield make_finding(codes.ORT_IMPORT, "ok", what, found=loading)
    yield from _merge_problems(problems)


def _merge_problems(problems: Sequence[tuple[Problem, Level]]) -> Iterator[Finding]:
    """Merge the findings of a code, with the worst level: both providers may lack the same library."""
    by_code: dict[Code, list[tuple[Problem, Level]]] = {}
    for problem, level in problems:
        if problem.code is not codes.GPU:  # checked separately
            by_code.setdefault(problem.code, []).append((problem, level))
    for code, found in by_code.items():
        worst: Level = "error" if any(level == "error" for _, level in found) else "warning"
        what = "; ".join(dict.fromkeys(problem.what for problem, _ in found))
        yield make_finding(code, worst, what, found[0][0].cure)


def needs_gpu(asked: str | None) -> bool:
    """Whether the requested provider runs on a GPU."""
    provider: Provider | None = PROVIDERS.get(asked or "")
    return provider is not None and provider.needs_gpu
