"""Comparison of methods: fairness check, paired differences, table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from dskd_export.documents.base import Interval
from dskd_export.documents.training import ComparedMethod, ComparisonDocument, PairedDifference, TrainingDocument
from dskd_export.errors import DataError

_LEAST_SEEDS = 3  # of an interval that is printed: two seeds that happen to agree make one of no width
_MOST_SEEDS = 100  # that somebody may be advised to train


def check_fair(documents: Mapping[tuple[str, int], TrainingDocument]) -> None:
    """Check that runs are comparable: same images, steps, teacher, student, and initial student of a seed.

    Args:
        documents: (label, seed) -> result of the training.

    Raises:
        DataError: images, steps, teacher, student or a seed's initial student differ.
    """
    facts: dict[str, Callable[[TrainingDocument], object]] = {
        "images": lambda d: d.data.sha256,
        "number of steps": lambda d: d.steps,
        "teacher": lambda d: d.teacher.sha256 if d.teacher is not None else None,
        "student": lambda d: d.model.name,
    }
    for name, read in facts.items():
        # The method without a teacher may run where there is none.
        told = {
            key: one
            for key, one in documents.items()
            if (name, one.method, one.teacher) != ("teacher", "none", None)
        }
        _same(name, told, read)
    for seed in {seed for _, seed in documents}:
        of_seed = {key: document for key, document in documents.items() if key[1] == seed}
        _same(f"initial student of seed {seed}", of_seed, lambda document: document.initial_sha256)


def _same(
    name: str,
    documents: Mapping[tuple[str, int], TrainingDocument],
    read: Callable[[TrainingDocument], object],
) -> None:
    found: dict[object, list[str]] = {}
    for (label, seed), document in documents.items():
        found.setdefault(read(document), []).append(f"{label} seed {seed}")
    if len(found) > 1:
        examples = " and ".join(names[0] for names in list(found.values())[:2])
        raise DataError(
            f"The runs are not comparable: the {name} differs, for example between {examples}.",
            "Give the comparison a new folder with --out, and all methods the same settings.",
        )


def compute_mean_interval(values: Sequence[float]) -> Interval | None:
    """Compute the mean and its 95 % interval by Student's t with n - 1 degrees of freedom.

    For paired differences, give the differences: what both members of a pair share cancels.

    Args:
        values: one independent measurement each, for example one a seed.

    Returns:
        None with fewer than two values: nothing is then known of their spread.
    """
    if len(values) < 2:
        return None
    from scipy import stats

    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5)
    return Interval(value=mean, low=mean - half, high=mean + half)


def compute_differences(methods: Sequence[ComparedMethod]) -> Iterator[PairedDifference]:
    """Compute the differences of every pair of methods, paired by seed."""
    for one, other in combinations(methods, 2):
        differences = [a - b for a, b in zip(one.top1, other.top1, strict=True)]
        yield PairedDifference(
            first=one.label,
            second=other.label,
            seeds=one.seeds,
            differences=differences,
            mean=sum(differences) / len(differences),
            interval=compute_mean_interval(differences),
        )


def find_difference(document: ComparisonDocument, first: str, second: str) -> PairedDifference:
    """Find `first - second`, whichever way round it is stored."""
    for pair in document.differences:
        if (pair.first, pair.second) == (first, second):
            return pair
        if (pair.first, pair.second) == (second, first):
            differences = [-value for value in pair.differences]
            return PairedDifference(
                first=first,
                second=second,
                seeds=pair.seeds,
                differences=differences,
                mean=-pair.mean,
                interval=compute_mean_interval(differences),
            )
    raise KeyError(f"{first}, {second}")


def format_rows(document: ComparisonDocument, against: str) -> list[list[str]]:
    """Format the rows: method, accuracy, difference of `against` from it, cost; in percent and points."""
    rows = []
    for method in document.methods:
        few = len(method.seeds) < _LEAST_SEEDS
        spread = None if few else method.interval
        accuracy = f"{100 * method.mean:.2f}"
        if spread is not None:
            accuracy += f" ± {100 * (spread.high - spread.value):.2f}"
        difference = ""
        if method.label != against:
            pair = find_difference(document, against, method.label)
            difference = f"{100 * pair.mean:+.2f}"
            if few:
                difference += f" ({len(pair.seeds)} seed{'' if len(pair.seeds) == 1 else 's'})"
            elif pair.interval is not None:
                difference += f" ({100 * pair.interval.low:+.2f} to {100 * pair.interval.high:+.2f})"
        memory = [value for value in method.peak_memory_mb if value is not None]
        rows.append(
            [
                method.label,
                accuracy,
                difference,
                f"{sum(method.seconds) / len(method.seconds):.0f}",
                f"{sum(method.images_per_s) / len(method.images_per_s):.0f}",
                f"{max(memory):.0f}" if memory else "not measured",
            ]
        )
    if document.commonest_class is not None and document.commonest_top1 is not None:
        share = document.commonest_top1
        best = next(method.mean for method in document.methods if method.label == against)
        name = f"always '{document.commonest_class}'"
        rows.append([name, f"{100 * share:.2f}", f"{100 * (best - share):+.2f}", "", "", ""])
    return rows


def count_seeds_needed(differences: Sequence[float]) -> int | None:
    """Count the seeds whose 95 % interval would exclude zero at the mean and spread of these differences.

    Returns:
        None: more than 100, or the differences tell nothing of the spread.
    """
    from scipy import stats

    array = np.asarray(differences, dtype=np.float64)
    if len(array) < _LEAST_SEEDS:
        return None
    mean, spread = abs(float(array.mean())), float(array.std(ddof=1))
    for seeds in range(_LEAST_SEEDS, _MOST_SEEDS + 1):
        if float(stats.t.ppf(0.975, seeds - 1)) * spread / seeds**0.5 < mean:
            return seeds
    return None


def list_notes(document: ComparisonDocument, against: str) -> list[str]:
    """List what the table does not show: too few seeds, differences within chance, nothing learned."""
    notes = []
    seeds = len(document.methods[0].seeds)
    if seeds < _LEAST_SEEDS:
        some = f"{seeds} seeds show" if seeds > 1 else "One seed shows"
        least = ",".join(map(str, range(_LEAST_SEEDS)))
        notes.append(f"{some} nothing of a difference: train at least {_LEAST_SEEDS} (--seeds {least}).")
    for method in document.methods:
        if document.commonest_top1 is not None and method.mean <= document.commonest_top1:
            notes.append(f"{method.label} is not above always answering '{document.commonest_class}'.")
        if method.label == against or seeds < _LEAST_SEEDS:
            continue
        pair = find_difference(document, against, method.label)
        if pair.interval is not None and pair.interval.low <= 0 <= pair.interval.high:
            needed = count_seeds_needed(pair.differences)
            how_many = f"more than {_MOST_SEEDS}" if needed is None else f"about {needed}"
            notes.append(f"{against} minus {method.label} is not shown: at this spread {how_many} seeds would do.")
    return notes


def list_headings(against: str) -> list[str]:
    """List the column heads of `format_rows`."""
    return ["method", "top-1 %", f"{against} minus it", "seconds", "images/s", "peak MB"]


def format_markdown(document: ComparisonDocument, against: str) -> str:
    """Format the comparison as a Markdown page."""
    seeds = document.methods[0].seeds
    intervals = "Intervals are 95 %, Student's t over seeds; " if len(seeds) >= _LEAST_SEEDS else ""
    teacher = "" if document.teacher_top1 is None else f" ({100 * document.teacher_top1:.2f} %)"
    head = list_headings(against)
    commits = [commit for commit in document.commits if commit]
    code = f"commit {', '.join(commits)}" if commits else document.provenance.code
    lines = [
        f"{document.teacher}{teacher} → {document.student}, {document.data.train_images} training and "
        f"{document.data.val_images} validation images (sha256 {document.data.sha256[:12]}), "
        f"{document.steps} steps, "
        f"seeds {', '.join(map(str, seeds))}, {document.epoch} epoch. {intervals}Differences are paired by seed.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in format_rows(document, against)),
        "",
        *(line for note in list_notes(document, against) for line in (note, "")),
        f"`{document.provenance.command}`, {code}, "
        f"{document.provenance.device.gpu or document.provenance.device.cpu}, {document.jobs} at a time.",
    ]
    return "\n".join(lines) + "\n"
