"""`dskd-compress bundle`: check, show, pack and unpack a bundle. Needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dskd_compress.commands import options

if TYPE_CHECKING:
    from dskd_compress.console import Output
    from dskd_export.bundle import Contents, LicenseFacts

app = typer.Typer(no_args_is_help=True, help="Check, show, pack and unpack a bundle.")

AnyBundle = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Bundle, packed bundle, or run folder that holds one.")
]
Folder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle, or run folder that holds one.")]


@app.command("verify")
def verify(path: AnyBundle, json_output: options.JsonFlag = False) -> None:
    """Verify a bundle: hashes, sizes, names, and the content of each file.

    Exit codes: 0 as exported; 3 damaged, incomplete or unsafe (the first line names the place);
    4 a .tar.zst, and zstandard is not installed.

    [bold]Examples[/bold]

      dskd-compress bundle verify runs/r18/bundle
      dskd-compress bundle verify r18.tar.gz --json
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_export.bundle import bundle_of

    output = Output(json_output)
    place = bundle_of(path)
    found = _read(place)
    files = len(found.manifest.files) + 1
    megabytes = found.manifest.size / 1e6
    output.print(
        escape(
            f"{place} is valid: {', '.join(found.precisions)}; {files} files, {megabytes:.1f} MB, {found.sha256}"
        )
    )
    output.result(
        {
            "path": str(place),
            "valid": True,
            "packed": not place.is_dir(),
            "sha256": found.sha256,
            "precisions": found.precisions,
            "files": files,
            "size_mb": megabytes,
        }
    )


@app.command("show")
def show(path: AnyBundle, json_output: options.JsonFlag = False) -> None:
    """Verify a bundle, then show its content and origin.

    [bold]Examples[/bold]

      dskd-compress bundle show runs/r18
      dskd-compress bundle show r18.tar.zst --json
    """
    from dskd_compress.console import Output
    from dskd_export.bundle import bundle_of
    from dskd_export.spec import describe_exif

    output = Output(json_output)
    found = _read(bundle_of(path))
    manifest, spec, origin = found.manifest, found.spec, found.manifest.provenance
    models = [
        [name, f"{_model_size(found, name) / 1e6:.2f}", manifest.models[name].producer, _calibrated(found, name)]
        for name in found.precisions
    ]
    model = {
        "architecture": spec.architecture,
        "input": f"{spec.input_name} {spec.channels}x{spec.height}x{spec.width}",
        "output": f"{spec.output_name}, {len(spec.classes):,} classes, opset {spec.opset}",
        "normalisation": f"mean {_numbers(spec.mean)}, std {_numbers(spec.std)}",
        "orientation in EXIF": describe_exif(spec.exif),
        "resize": f"{spec.interpolation}, crop {spec.crop_pct:g} {spec.crop_mode}",
    }
    source = {
        "student": f"{origin.student}, {origin.student_sha256}",
        "teacher": f"{origin.teacher} ({origin.teacher_weights})" if origin.teacher else "none",
        "method": f"{origin.method}, seed {origin.seed}",
        "recipe": f"{origin.recipe}, {origin.recipe_sha256}",
        "data": origin.data_sha256,
        "licence": _license(origin.licenses.weights),
        "licence of the start": _license(origin.licenses.student_start),
        "licence of the teacher": _license(origin.licenses.teacher),
        "versions": ", ".join(f"{name} {version}" for name, version in origin.versions.items()),
    }
    files = [[name, f"{facts.size:,}", facts.sha256] for name, facts in sorted(manifest.files.items())]
    _table(output, "Precisions", ["precision", "size, MB", "made by", "calibrated on"], models)
    _table(output, "Model", ["", ""], model.items())
    _table(output, "Origin", ["", ""], source.items())
    _table(output, "Files", ["file", "bytes", "sha256"], [*files, ["manifest.json", "", found.sha256]])
    output.result(
        {
            "sha256": found.sha256,
            "manifest": manifest.model_dump(mode="json"),
            "spec": spec.model_dump(mode="json"),
            "calibration": None if found.calibration is None else found.calibration.model_dump(mode="json"),
        }
    )


@app.command("pack")
def pack(
    path: Folder,
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="File ending in .tar.zst or .tar.gz. Default: next to the bundle."),
    ] = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Verify a bundle and pack it into one file. The same bundle gives the same bytes.

    Without --out it is a .tar.zst where zstandard is installed, else a .tar.gz.

    [bold]Examples[/bold]

      dskd-compress bundle pack runs/r18/bundle
      dskd-compress bundle pack runs/r18 --out r18.tar.gz
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_export.bundle import bundle_of, pack_bundle
    from dskd_export.files.atomic import sha256_file

    output = Output(json_output)
    file = pack_bundle(bundle_of(path), out)
    size, sha256 = file.stat().st_size, sha256_file(file)
    output.print(escape(f"Packed: {file}, {size / 1e6:.1f} MB, {sha256}"))
    output.result({"path": str(file), "size_mb": size / 1e6, "sha256": sha256})


@app.command("unpack")
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Packed bundle.")],
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="Folder to write. Default: next to the file.")
    ] = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Unpack a bundle into a folder, which appears once all of it is verified.

    An existing bundle is replaced; anything else is refused.

    [bold]Examples[/bold]

      dskd-compress bundle unpack r18.tar.zst
      dskd-compress bundle unpack r18.tar.gz --out bundle
    """
    from contextlib import nullcontext

    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder
    from dskd_export.bundle import unpack_bundle

    output = Output(json_output)
    run = RunFolder(file.parent if out is None else out.absolute().parent)
    with run.writing(output.warn) if (run / "recipe.yaml").is_file() else nullcontext():
        bundle = unpack_bundle(file, out)
    output.print(escape(f"Bundle: {bundle.folder}"))
    output.result({"path": str(bundle.folder), "sha256": bundle.sha256, "precisions": bundle.precisions})


def _read(path: Path) -> Contents:
    from dskd_export.bundle import open_bundle, verify_packed

    return verify_packed(path) if path.exists() and not path.is_dir() else open_bundle(path)


def _table(output: Output, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of untrusted texts: no control sequence of them reaches the terminal."""
    from dskd_export.files.json_text import one_line

    output.table(title, columns, [[one_line(cell) for cell in row] for row in rows])


def _model_size(found: Contents, precision: str) -> int:
    return sum(
        facts.size for name, facts in found.manifest.files.items() if name.startswith(f"model.{precision}.")
    )


def _calibrated(found: Contents, precision: str) -> str:
    if found.calibration is None or precision not in found.calibration.precisions:
        return ""
    calibration = found.calibration.precisions[precision]
    return f"{len(found.calibration.image_sha256)} images, {calibration.method}, {calibration.producer}"


def _license(facts: LicenseFacts) -> str:
    return f"{facts.name or 'unknown'} ({facts.source})"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3g}" for value in values)
