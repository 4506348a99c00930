"""Time the engines with TensorRT's own tool as well: do both clocks agree?

trtexec's defaults changed with TensorRT 11: CUDA graph and spinning on, copies off (migration guide, "trtexec").
So every flag that matters is given, for the installed version. TensorRT-RTX calls its tool tensorrt_rtx.

The tool's latency is copies and kernels by events of the GPU; ours is the wall clock of a call with numpy
arrays, which also copies into and out of page-locked memory.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from dskd_export.documents.benchmark import BenchmarkRow, CrossCheck
from dskd_export.engine.document import BuildDocument
from dskd_export.engine.identity import FoundEngine
from dskd_export.errors import EnvironmentProblem
from dskd_export.spec import ModelSpec

TOOLS = {"tensorrt": "trtexec", "tensorrt-rtx": "tensorrt_rtx"}
# Where Debian packages and JetPack put it; it is not on the path there.
_FOLDERS = (Path("/usr/src/tensorrt/bin"), Path("/opt/tensorrt/bin"))
_WARM_UP_MS = 200
_SECONDS = 3
_LONGEST_S = 300
_LATENCY = re.compile(
    r"\bLatency: min = [^\n]*?median = (?P<p50>[\d.]+) ms,[^\n]*?percentile\(99%\) = (?P<p99>[\d.]+) ms"
)


def find_tools(found: Sequence[FoundEngine]) -> dict[str, Path]:
    """Find the tool of each backend among the engines that can run here.

    Raises:
        EnvironmentProblem: one is missing, or there is no engine to check.
    """
    backends = dict.fromkeys(one.document.backend for one in found if not one.problem)
    if not backends:
        raise EnvironmentProblem(
            "There is no engine to cross-check: none can run here.", "Build one: dskd-compress build"
        )
    tools: dict[str, Path] = {}
    for backend in backends:
        path = shutil.which(TOOLS[backend]) or next(
            (str(folder / TOOLS[backend]) for folder in _FOLDERS if (folder / TOOLS[backend]).is_file()), None
        )
        if path is None:
            raise EnvironmentProblem(
                f"{TOOLS[backend]} is neither on the path nor in {', '.join(map(str, _FOLDERS))}.",
                "Install it (Debian: libnvinfer-bin), put it on the path, or: --set benchmark.cross_check=null",
            )
        tools[backend] = Path(path)
    return tools


def run_cross_checks(
    found: Sequence[FoundEngine], rows: Sequence[BenchmarkRow], spec: ModelSpec, tools: dict[str, Path]
) -> Iterator[CrossCheck]:
    """Run the tool for every engine and batch that was timed."""
    engines = {one.precision: one for one in found if not one.problem}
    for row in rows:
        if row.runner != "tensorrt" or row.part != "engine" or row.latency is None:
            continue
        engine = engines[row.precision]
        tool = tools[engine.document.backend]
        command = [
            str(tool),
            *make_flags(engine.document, engine.path, row.batch, spec, graph=bool(row.cuda_graph)),
        ]
        p50_ms, p99_ms, reason = _run(command)
        yield CrossCheck(
            tool=tool.name,
            precision=row.precision,
            batch=row.batch,
            command=shlex.join([tool.name, *command[1:]]),
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            own_p50_ms=row.latency.p50_ms,
            own_p99_ms=row.latency.p99_ms,
            ratio=None if not p50_ms else row.latency.p50_ms / p50_ms,
            reason=reason,
        )


def make_flags(document: BuildDocument, engine: Path, batch: int, spec: ModelSpec, *, graph: bool) -> list[str]:
    """Make the tool's flags for a call like ours: with copies, spinning, and with or without a CUDA graph.

    Args:
        document: of the engine; its version decides how things are spelled.
        engine: the file.
        batch: images of a call.
        spec: for the input's name and shape.
        graph: ours was replayed from a CUDA graph.
    """
    shape = "x".join(map(str, spec.input_shape(batch)))
    given = [f"--loadEngine={engine}"]
    if document.profiles:
        given.append(f"--shapes={spec.input_name}:{shape}")
    given += [f"--warmUp={_WARM_UP_MS}", f"--duration={_SECONDS}", "--iterations=10", "--percentile=90,95,99"]
    if document.dla is not None:
        given.append(f"--useDLACore={document.dla.core}")
    if document.backend == "tensorrt-rtx":
        return [*given, "--includeDataTransfers", *([] if graph else ["--rtxCudaGraphStrategy=disable"])]
    if int(document.version.partition(".")[0]) >= 11:
        return [*given, "--includeDataTransfers", *([] if graph else ["--noCudaGraph"])]
    return [*given, "--useSpinWait", *(["--useCudaGraph"] if graph else [])]


def parse_latency(text: str) -> tuple[float, float] | None:
    """Read median and 99th percentile in milliseconds from the tool's performance summary; None: it has none."""
    match = _LATENCY.search(text)
    return None if match is None else (float(match["p50"]), float(match["p99"]))


def _run(command: Sequence[str]) -> tuple[float | None, float | None, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        return None, None, f"it took more than {_LONGEST_S} s"
    except OSError as error:
        return None, None, f"it does not start: {error.strerror}"
    parsed = parse_latency(done.stdout)
    if done.returncode == 0 and parsed is not None:
        return *parsed, ""
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line or "rror" in line]
    return None, None, errors[-1].strip() if errors else f"it ended with {done.returncode} and no summary"
