"""`dskd-compress push-to-hub`: the student, its bundle and its card on the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from dskd_compress.commands import options


def push_to_hub(
    run: options.Run,
    repository: Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help="Created if missing.")],
    private: Annotated[bool, typer.Option("--private", help="Create it as a private one.")] = False,
    message: Annotated[str, typer.Option("--message", help="Commit message.")] = "Add model",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the files and the model card; upload nothing.")
    ] = False,
    json_output: options.JsonFlag = False,
) -> None:
    """Upload a run to the Hugging Face Hub: weights that timm loads by name, bundle, report and model card.

    The card lists what was measured and omits what was not. With --dry-run nothing is sent.

    Needs the extra (pip install 'dskd-compress\\[hub]') and a login (hf auth login, or HF_TOKEN).

    [bold]Examples[/bold]

      dskd-compress push-to-hub runs/r18 --repo me/bolts-r18 --dry-run
      dskd-compress push-to-hub runs/r18 --repo me/bolts-r18 --private
    """
    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    folder.read_recipe([])

    from dskd_compress.hub import check_repository, hub_folder, list_files, push

    check_repository(repository)
    with hub_folder(folder, repository) as made:
        files = list_files(made)
        output.table(
            f"{repository}{' (dry run)' if dry_run else ''}",
            ["file", "MB", "sha256"],
            [[file.name, f"{file.size / 1e6:.3f}", file.sha256[:16]] for file in files],
        )
        if dry_run:
            output.plain((made / "README.md").read_text(encoding="utf-8"))
            output.plain("Nothing was uploaded.")
        url = None if dry_run else push(made, repository, private=private, message=message)
    if url is not None:
        output.plain(f"Uploaded: {url}")
    output.result({"repository": repository, "files": [vars(file) for file in files], "url": url})
