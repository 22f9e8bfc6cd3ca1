"""What a task asks, as files: training cells, cells to answer for, and a manifest with their digests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.keep.files import replacing
from bench.records import PlanError
from bench.studies.submit.questions import ANSWERS, Asked, asked_by
from methods.program import handed_over, write_cells
from tasks.datasets.built import sha256

MANIFEST = "manifest.json"
#: Rises when manifests of before can no longer be read.
FORMAT = 1


def split(
    task_name: str,
    preset: str,
    seeds: int | None,
    draws: Sequence[int] | None,
    into: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write all that methods see of a task into an empty directory, and return the manifest.

    Parameters
    ----------
    task_name
        ``task/dataset``.
    preset, seeds, draws
        As :class:`bench.options.Options` has them.
    into
        Where files go; made if need be.
    say
        Called with the name of each fit when it has been written.

    Raises
    ------
    PlanError
        The directory is not empty, or files cannot answer what the task asks.
    """
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise PlanError(f"--into {into}: is not an empty directory; name a new one")
    fits = asked_by(task_name, preset, seeds, draws)
    into.mkdir(parents=True, exist_ok=True)
    entries = []
    for entry, asked in zip(described(fits), fits, strict=True):
        cells = {entry["train"]: asked.training}
        questions = zip(entry["questions"], asked.questions.values(), strict=True)
        cells |= {asked_in["file"]: question.cells for asked_in, question in questions}
        (into / entry["fit"]).mkdir()
        for name, data in cells.items():
            write_cells(handed_over(data), into / name, compression="gzip")
        entries.append({**entry, "files": {name: sha256(into / name) for name in cells}})
        say(f"{entry['fit']}: {asked.training.n_obs} training cells, {len(asked.questions)} questions")
    manifest = {
        "format": FORMAT,
        "task": task_name,
        "preset": preset,
        "seeds": seeds,
        "draws": list(draws) if draws else None,
        "fits": entries,
    }
    with replacing(into / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1))
    return into / MANIFEST


def described(fits: Sequence[Asked]) -> list[dict[str, Any]]:
    """Return each fit as the manifest has it, without the checksums of files.

    ``cells`` are digests of what a method sees; an answer is a file of that name and the suffix of its format.
    """
    entries = []
    for number, asked in enumerate(fits, 1):
        name, seen = f"fit{number:03d}", dict.fromkeys(ANSWERS, 0)
        questions: list[dict[str, Any]] = []
        for question in asked.questions.values():
            seen[question.ability] += 1
            stem = f"{name}/{question.ability}{seen[question.ability]}"
            questions.append(
                {
                    "ask": question.ability,
                    "environment": question.environment,
                    "file": f"{stem}.h5ad",
                    "answer": f"{stem}.{ANSWERS[question.ability]}",
                    "n_cells": question.cells.n_obs,
                    "n_genes": question.cells.n_vars,
                    "cells": question.digest,
                }
            )
        entries.append(
            {
                "fit": name,
                "units": asked.units,
                "seed": asked.seed,
                "train": f"{name}/train.h5ad",
                "cells": asked.digest,
                "questions": questions,
            }
        )
    return entries
