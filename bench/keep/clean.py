"""Files of an out directory that can be removed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.keep.store import Store

#: Kinds of files that can be removed, and what that costs.
CHOICES = {
    "fits": "fits kept between jobs; a job that needs one makes it again",
    "logs": "what jobs printed",
    "failed": "results, with their logs, of jobs that failed, timed out, ran out of memory or were killed; "
    "the next run tries them again, as it would anyway",
}


@dataclass(frozen=True)
class Rubbish:
    """Files of one choice."""

    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(file.lstat().st_size for file in self.files)


def find(store: Store, choice: str) -> Rubbish:
    """Return the files of one of :data:`CHOICES`; links are not followed."""
    if choice == "failed":
        failed = [result.job.id for result in store.results() if not result.status.final]
        files = [file for job in failed for file in (store.file(job), store.out / "logs" / f"{job}.log")]
        return Rubbish(tuple(file for file in files if file.exists()))
    directory = store.out / choice
    return Rubbish(tuple(file for file in sorted(directory.glob("*")) if file.is_symlink() or file.is_file()))


def remove(rubbish: Rubbish) -> None:
    """Remove the files."""
    for file in rubbish.files:
        file.unlink(missing_ok=True)
