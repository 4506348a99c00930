"""Time one bundle on several devices, here and over ssh, and put their results side by side. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_compress.console import Output
from dskd_compress.recipe import bundle_settings
from dskd_compress.stages.on_device import benchmark_source
from dskd_export.bundle.results import BENCHMARK_FILES, check_out, hold_results, results_folder
from dskd_export.bundle.source import open_source
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument, DeviceResult, DevicesDocument
from dskd_export.errors import DskdError, EnvironmentProblem, UsageError
from dskd_export.files.atomic import write_atomic
from dskd_export.files.folder_lock import refuse_links
from dskd_export.fleet import Address, RemoteCommand, parse_address, run_remotely
from dskd_export.telemetry.device_name import device_name

LOG = "benchmark.log"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Remotes:
    """How other machines are reached.

    Attributes:
        program: that starts this tool there, as its shell takes it.
        ssh_options: for ssh, as on its command line.
    """

    program: str = "dskd-compress"
    ssh_options: Sequence[str] = ()


def benchmark_devices(
    source: Path, devices: Sequence[str], overrides: list[str], out: Path | None, remotes: Remotes, output: Output
) -> tuple[DevicesDocument, Path]:
    """Time a bundle on each device in turn; writes `<out>/<device>/` for each and `<out>/devices.json`.

    A device that fails does not stop the others; it stands in the document with its reason.

    Args:
        source: the bundle, packed or not.
        devices: `local` and `ssh://[user@]host[:port]`.
        overrides: `key=value` of the sections that a bundle takes.
        out: None: `results/<bundle>`.
        remotes: how other machines are reached.
        output: is told what every device says.

    Raises:
        BundleError: this is no bundle, or a damaged one.
        UsageError: an address is none, or is there twice; a key has no meaning here.
    """
    addresses = [parse_address(text) for text in dict.fromkeys(devices)]
    folder = out or results_folder(source, device_name()).parent
    check_out(folder, source)
    names = [device_name() if address is None else address.name for address in addresses]
    if len(set(names)) < len(names):
        raise UsageError(f"--device names one machine twice: {', '.join(names)}.", "Name each once.")
    results: list[DeviceResult] = []
    with open_source(source) as bundle, hold_results(folder, output.warn):
        refuse_links(folder, names)
        bundle_settings(overrides)  # what is wrong with the settings is told before anything is sent
        for name, address in zip(names, addresses, strict=True):
            place, where = folder / name, "local" if address is None else str(address)
            try:
                if address is None:
                    benchmark_source(source, overrides, None, place, output)
                else:
                    _on_device(address, bundle.folder, bundle.sha256, overrides, place, remotes, output)
                document = read_document(place / "benchmark.json", BenchmarkDocument)
                if document.bundle_sha256 != bundle.sha256:
                    raise EnvironmentProblem(
                        f"{where} timed another bundle than {source}.", "Empty ~/.cache/dskd-compress there."
                    )
            except DskdError as error:
                output.warn(f"{name}: {error.message}")
                results.append(DeviceResult(name=name, address=where, reason=str(error)))
            else:
                results.append(DeviceResult(name=name, address=where, benchmark=document))
        done = DevicesDocument(bundle_sha256=bundle.sha256, devices=results)
    write_atomic(folder / "devices.json", done.model_dump_json(indent=2) + "\n")
    return done, folder


def refuse_failed(document: DevicesDocument) -> None:
    """Raise if a device gave no results.

    Raises:
        EnvironmentProblem: names all of them.
    """
    failed = [f"{one.name}: {one.reason}" for one in document.devices if one.benchmark is None]
    if failed:
        raise EnvironmentProblem(
            f"{len(failed)} of {len(document.devices)} devices gave no results: {'; '.join(failed)}",
            "The results of the others are kept; run the same line again once these are mended.",
        )


def _on_device(
    address: Address,
    bundle: Path,
    sha256: str,
    overrides: Sequence[str],
    place: Path,
    remotes: Remotes,
    output: Output,
) -> None:
    log: list[str] = []

    def say(line: str) -> None:
        plain = _CONTROL.sub("", line)  # another machine's words do not steer this terminal
        log.append(plain)
        output.plain(f"{address.name}: {plain}")

    settings = [part for override in overrides for part in ("--set", override)]
    command = RemoteCommand(
        remotes.program, ["benchmark", "@bundle@", "--out", "@out@", "--report-only", *settings], BENCHMARK_FILES
    )
    try:
        run_remotely(address, bundle, sha256, command, place, say=say, options=remotes.ssh_options)
    finally:
        if log:
            write_atomic(place / LOG, "\n".join(log) + "\n")
