"""Upload of a run to the Hugging Face Hub: weights that timm loads by name, the bundle, the card."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from dskd_compress.run_folder import RunFolder
from dskd_compress.shortages import first_line
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import load_trained
from dskd_export.bundle import open_bundle
from dskd_export.errors import EnvironmentProblem, UsageError, require
from dskd_export.files.atomic import sha256_file
from dskd_export.report import build_report
from dskd_export.report.card import model_card
from dskd_export.report.load import load_run
from dskd_export.report.staleness import FileHashes, check_stages


@dataclass(frozen=True)
class HubFile:
    """One file of the repository."""

    name: str
    size: int
    sha256: str


@contextlib.contextmanager
def hub_folder(folder: RunFolder, repository: str) -> Iterator[Path]:
    """Write the content of a repository into a temporary folder.

    `model.safetensors` and `config.json` are what `timm.create_model("hf-hub:OWNER/NAME")` reads: plain weights,
    classes and preprocessing. `bundle/` and `report.html`, without its photos, are added where the run has them.

    Args:
        repository: `OWNER/NAME`, for the card.

    Raises:
        BundleError: the bundle is damaged.
        DataError: the run has no student.
    """
    weights = folder.require("student.safetensors", "distill")
    model, info = load_trained(weights)
    run = load_run(folder.path)
    stages = check_stages(run.stages, FileHashes(folder.path))
    card = model_card(run, name=repository, stale=[check.record.stage for check in stages if check.stale])
    with tempfile.TemporaryDirectory(prefix="dskd-hub-") as name:
        made = Path(name)
        import_timm()
        from timm.models import save_for_hf

        save_for_hf(
            model,
            str(made),
            model_config={"label_names": list(info.classes)},
            data_config=asdict(info.preprocessing),
            safe_serialization=True,
        )
        (made / "README.md").write_text(card, encoding="utf-8")
        if folder.bundle.is_dir():
            open_bundle(folder.bundle)
            shutil.copytree(folder.bundle, made / "bundle")
        if (folder / "report.html").is_file():
            # Whoever publishes a model does not publish photos of the validation set with it.
            report = build_report(folder.path, title=folder.read_recipe().report.title, photos=False)
            (made / "report.html").write_text(report.html, encoding="utf-8")
        yield made


def list_files(made: Path) -> list[HubFile]:
    """List the files of a folder, sorted by name."""
    paths = sorted(path for path in made.rglob("*") if path.is_file())
    return [HubFile(path.relative_to(made).as_posix(), path.stat().st_size, sha256_file(path)) for path in paths]


def push(made: Path, repository: str, *, private: bool, message: str) -> str:
    """Upload a folder as one commit, to a repository that is created if missing; return the commit's URL.

    The login comes from `hf auth login` or HF_TOKEN.

    Raises:
        EnvironmentProblem: the Hub cannot be reached, or refuses.
        MissingExtra: huggingface_hub is not installed.
    """
    hub, utils = _hub()
    api = hub.HfApi(library_name="dskd-compress")
    try:
        repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
        return str(api.upload_folder(repo_id=repository, folder_path=made, commit_message=message).commit_url)
    except utils.HfHubHTTPError as error:
        forbidden = getattr(error.response, "status_code", None) in (401, 403)
        raise EnvironmentProblem(
            f"The Hub refuses {repository}: {first_line(error)}",
            "Log in with a token that may write there: hf auth login"
            if forbidden
            else "Check the content first: --dry-run",
        ) from error
    except Exception as error:  # the client's transport raises its own classes
        if not _is_of_the_network(error):
            raise
        raise EnvironmentProblem(
            f"The Hub cannot be reached: {first_line(error)}", "Check the network; --dry-run needs none."
        ) from error


def check_repository(name: str) -> None:
    """Refuse a name that the Hub would refuse.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        UsageError: it is no OWNER/NAME.
    """
    _, utils = _hub()
    try:
        utils.validate_repo_id(name)
        if name.count("/") != 1:
            raise utils.HFValidationError("it has no owner")
    except utils.HFValidationError as error:
        raise UsageError(f"{name} is no valid name: {first_line(error)}", "Give OWNER/NAME.") from error


def _hub() -> tuple[ModuleType, ModuleType]:
    return require("huggingface_hub", "hub"), require("huggingface_hub.utils", "hub")


def _is_of_the_network(error: Exception) -> bool:
    """httpx and requests, whichever the client uses, name theirs alike."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(
        names & {"TransportError", "RequestException", "OfflineModeIsEnabled"}
    )
