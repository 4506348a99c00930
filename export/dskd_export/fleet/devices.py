"""Benchmark one bundle on several devices, here and over ssh, side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dskd_export.bundle import Bundle
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument, DeviceResult, DevicesDocument
from dskd_export.errors import DskdError, EnvironmentProblem, UsageError
from dskd_export.files.atomic import write_atomic
from dskd_export.fleet.address import Address, parse_address
from dskd_export.fleet.run import RemoteCommand, run_remotely

LOG = "benchmark.log"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def name_devices(texts: Sequence[str], here: str) -> dict[str, Address | None]:
    """Parse addresses: name of the device's folder of results -> its address; None: this machine.

    Args:
        texts: `local` and `ssh://[user@]host[:port]`.
        here: name of this machine's folder.

    Raises:
        UsageError: an address is not valid, or a machine is named twice.
    """
    addresses = [parse_address(text) for text in dict.fromkeys(texts)]
    names = [here if address is None else address.name for address in addresses]
    if len(set(names)) < len(names):
        raise UsageError(f"--on names one machine twice: {', '.join(names)}.", "Name each once.")
    return dict(zip(names, addresses, strict=True))


def benchmark_devices(
    bundle: Bundle,
    devices: Mapping[str, Address | None],
    out: Path,
    command: RemoteCommand,
    *,
    ssh_options: Sequence[str] = (),
    benchmark_here: Callable[[Path], object],
    on_line: Callable[[str], None],
    warn: Callable[[str], None],
) -> DevicesDocument:
    """Benchmark a bundle on each device in turn; writes `out/<name>/` for each and `out/devices.json`.

    A device that fails does not stop the others; it stands in the document with its reason.

    Args:
        bundle: the models.
        devices: as `name_devices` gives them.
        out: folder of all results.
        command: that benchmarks on other machines.
        ssh_options: for ssh, as on its command line.
        benchmark_here: benchmarks on this machine, into the folder that it is given.
        on_line: called with every line of another machine's output; `warn` where a device fails.
    """
    results: list[DeviceResult] = []
    for name, address in devices.items():
        folder, shown = out / name, "local" if address is None else str(address)
        try:
            if address is None:
                benchmark_here(folder)
            else:
                _benchmark_there(address, bundle, folder, command, ssh_options, on_line)
            document = read_document(folder / "benchmark.json", BenchmarkDocument)
            if document.bundle_sha256 != bundle.sha256:
                raise EnvironmentProblem(
                    f"{shown} timed another bundle than {bundle.folder}.", "Empty ~/.cache/dskd-compress there."
                )
        except DskdError as error:
            warn(f"{name}: {error.message}")
            results.append(DeviceResult(name=name, address=shown, reason=str(error)))
        else:
            results.append(DeviceResult(name=name, address=shown, benchmark=document))
    done = DevicesDocument(bundle_sha256=bundle.sha256, devices=results)
    write_atomic(out / "devices.json", done.model_dump_json(indent=2) + "\n")
    return done


def require_all_devices(document: DevicesDocument) -> None:
    """Raise if a device gave no results.

    Raises:
        EnvironmentProblem: names all of them.
    """
    failed = [f"{one.name}: {one.reason}" for one in document.devices if one.benchmark is None]
    if failed:
        raise EnvironmentProblem(
            f"{len(failed)} of {len(document.devices)} devices gave no results: {'; '.join(failed)}",
            "The results of the others are kept. Fix these, and run the same command again.",
        )


def _benchmark_there(
    address: Address,
    bundle: Bundle,
    folder: Path,
    command: RemoteCommand,
    ssh_options: Sequence[str],
    on_line: Callable[[str], None],
) -> None:
    log: list[str] = []

    def add_line(line: str) -> None:
        plain = _CONTROL.sub("", line)  # output of another machine must not control this terminal
        log.append(plain)
        on_line(f"{address.name}: {plain}")

    try:
        run_remotely(address, bundle.folder, bundle.sha256, command, folder, on_line=add_line, options=ssh_options)
    finally:
        if log:
            write_atomic(folder / LOG, "\n".join(log) + "\n")
