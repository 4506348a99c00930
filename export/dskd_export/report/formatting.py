"""Format numbers with their unit; none rounds to a false 0."""

from __future__ import annotations

import math

from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkRow, ScenarioResult

NBSP = "\u00a0"  # keeps a number and its unit on one line


def unbroken(text: str) -> str:
    """Keep every number and its percent sign on one line."""
    return text.replace(" %", f"{NBSP}%")


def significant(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits: 0.0123, 1.23, 12.3, 1,234, 1.2e-7."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def exact(value: float) -> str:
    """A limit as it was set: 0.9999 stays 0.9999."""
    text = f"{value:.10g}"
    return text.replace("e-0", "e-").replace("e+0", "e+")


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in [0, 1] as percent."""
    return f"{100 * fraction:.{digits}f}{NBSP}%"


def percent_interval(interval: Interval) -> str:
    """A fraction with its 95 % interval, in percent: `97.2 % (95.0–98.5 %)`."""
    return f"{percent(interval.value)} ({percent_range(interval)})"


def percent_range(interval: Interval) -> str:
    """The interval alone, in percent: `95.0–98.5 %`."""
    return f"{100 * interval.low:.1f}–{100 * interval.high:.1f}{NBSP}%"


def count(value: int) -> str:
    """All digits of a count: 11,173,962."""
    return f"{value:,}"


def scaled(value: float) -> str:
    """A large count with three digits and K, M or G: `11.2 M`."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{significant(value / factor)}{NBSP}{suffix}"
    return significant(value)


def megabytes(value: float) -> str:
    """A size in MB, 1 MB = 10^6 bytes."""
    return f"{significant(value)}{NBSP}MB"


def file_size(size: int) -> str:
    """A size in bytes, in the unit that suits it (1 kB = 1,000 bytes)."""
    for factor, suffix in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= factor:
            return f"{significant(size / factor)}{NBSP}{suffix}"
    return f"{size}{NBSP}B"


def points(fraction: float) -> str:
    """A difference of two fractions in percentage points, with its sign: `−1.1`."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", "−")  # + 0.0: no "−0.0"


def milliseconds(value: float) -> str:
    """A time in ms."""
    return f"{significant(value)}{NBSP}ms"


def rate(value: float) -> str:
    """Images per second."""
    return f"{significant(value)}{NBSP}images/s"


def duration(seconds: float) -> str:
    """A wall time: `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{significant(seconds)}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest}{NBSP}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{NBSP}h {minutes}{NBSP}min"


def times(reference: float, value: float, less: str, more: str, same: str) -> str:
    """How many times `value` is below (`less`) or above (`more`) the reference: `4.1× smaller`.

    `same` is the answer where three digits show no difference.

    Raises:
        ValueError: one of them is not positive, so that there is no ratio.
    """
    if reference <= 0 or value <= 0:
        raise ValueError(f"no ratio of {reference} and {value}")
    ratio = reference / value
    if significant(max(ratio, 1 / ratio)) == "1.00":
        return same
    return f"{significant(ratio)}× {less}" if ratio > 1 else f"{significant(1 / ratio)}× {more}"


def runner_name(runner: str, provider: str, precision: str, threads: int | None) -> str:
    """A runner for people: `ONNX Runtime, CPU, fp32, 2 threads`."""
    product = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT"}.get(runner, runner)
    parts = [product, provider.upper() if provider in ("cpu", "cuda") else provider, precision]
    if threads is not None:
        parts.append(f"{threads} thread{'' if threads == 1 else 's'}")
    return ", ".join(parts)


def around(interval: Interval) -> str:
    """A value with its interval, `1.23 (1.20–1.27)`; without one the value alone."""
    text = significant(interval.value)
    if interval.low == interval.high:
        return text
    return f"{text} ({significant(interval.low)}–{significant(interval.high)})"


def runner_of(row: BenchmarkRow | ScenarioResult) -> str:
    """The runner of a measurement, for people."""
    return runner_name(row.runner, row.provider, row.precision, row.threads)
