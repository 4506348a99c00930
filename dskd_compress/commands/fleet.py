"""`dskd-compress fleet`: benchmark one bundle on several devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dskd_compress.commands import benchmark_options as bench
from dskd_compress.commands import options, settings

if TYPE_CHECKING:
    from dskd_compress.console import Output


@settings.takes(*settings.MEASURED, settings.PROFILE)
def fleet(
    *,
    source: options.RunOrBundle,
    on: bench.On = None,
    changes: list[str],
    remote_command: bench.RemoteCommand = "dskd-compress",
    ssh_config: bench.SshConfig = None,
    report_only: bench.ReportOnly = False,
    out: bench.Results = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Benchmark a bundle on several devices over ssh, and print one table.

    The bundle is sent once, and this tool runs there. A lost connection is retried, and a killed command resumes
    when it is run again. Exit 4: a device gave no results. Exit 5 and 6: as benchmark.

    [bold]Examples[/bold]

      dskd-compress fleet bundle --on ssh://user@orin --on local
      dskd-compress fleet runs/r18 --on ssh://user@server:2222 --precision int8 --batch 1
    """
    from dskd_compress.console import Output
    from dskd_export.errors import UsageError

    if not on:
        raise UsageError("fleet needs at least one device.", "Name it: --on ssh://user@host")
    run_on_fleet(source, on, changes, remote_command, ssh_config, out, report_only, Output(json_output))


def run_on_fleet(
    source: Path,
    devices: list[str],
    changes: list[str],
    program: str,
    ssh_config: Path | None,
    out: Path | None,
    report_only: bool,
    output: Output,
) -> None:
    """Benchmark a bundle on each device, print one table, and end with the worst exit code.

    Raises:
        BundleError: this is no bundle, or a damaged one.
        UsageError: an address is not valid, or a machine is named twice; a key has no meaning here.
    """
    from dskd_compress.recipe import bundle_settings
    from dskd_compress.show.benchmark import print_rows, refuse_slow_anywhere
    from dskd_compress.show.profile import print_profiles
    from dskd_compress.stages.benchmark import benchmark_bundle
    from dskd_export.bundle import bundle_of
    from dskd_export.bundle.results import BENCHMARK_FILES, check_out, hold_results, results_folder
    from dskd_export.bundle.source import open_source
    from dskd_export.files.folder_lock import refuse_links
    from dskd_export.fleet.devices import benchmark_devices, name_devices, require_all_devices
    from dskd_export.fleet.run import RemoteCommand
    from dskd_export.telemetry.host import device_name

    source = bundle_of(source)
    addresses = name_devices(devices, device_name())
    folder = out or results_folder(source, device_name()).parent
    check_out(folder, source)
    settings = [word for change in changes for word in ("--set", change)]
    words = ["benchmark", "@bundle@", "--out", "@out@", "--report-only"]
    ssh_options = () if ssh_config is None else ("-F", str(ssh_config))
    with open_source(source) as bundle, hold_results(folder, output.warn):
        refuse_links(folder, tuple(addresses))
        bundle_settings(changes)  # refuses wrong settings before anything is sent
        document = benchmark_devices(
            bundle,
            addresses,
            folder,
            RemoteCommand(program, [*words, *settings], BENCHMARK_FILES),
            ssh_options=ssh_options,
            benchmark_here=lambda place: benchmark_bundle(source, changes, None, place, output),
            on_line=output.plain,
            warn=output.warn,
        )
    tables = [(one.name, one.benchmark) for one in document.devices if one.benchmark is not None]
    print_rows(tables, output)
    print_profiles(tables, output)
    output.plain(f"Results: {folder / 'devices.json'}")
    output.result(document)
    require_all_devices(document)
    if not report_only:
        refuse_slow_anywhere([one for _, one in tables])
