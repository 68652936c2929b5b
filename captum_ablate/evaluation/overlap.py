"""Which of the evaluated samples the units were ranked on, told by digests of samples."""

from __future__ import annotations

from typing import NamedTuple

from captum_ablate.inputs.fingerprint import DataDigest

TOLERATED = 0.01
"""Share of the evaluated samples that may occur in the ranking data before p is withheld: data sets hold repeats."""


class Overlap(NamedTuple):
    """Ranking and evaluation data side by side; what is not known is None.

    ``ranking_n`` samples were ranked on; ``overlap`` evaluated samples occur among them. Digests are those of
    ``DataDigest``.
    """

    ranking_n: int | None
    ranking_digest: str | None
    evaluation_digest: str | None
    overlap: int | None

    @classmethod
    def of(cls, ranked: DataDigest | None, evaluated: DataDigest | None, *, is_same: bool) -> Overlap:
        """Return the overlap of the data ``ranked`` on, None if there were none, and those ``evaluated``.

        ``is_same`` says that both are the same data, whatever their digests: a loader may draw other crops of a picture
        at each pass.
        """
        own = None if evaluated is None else evaluated.hexdigest()
        if ranked is None:
            return cls(None, None, own, None)
        overlap = None if evaluated is None else evaluated.n if is_same else evaluated.shared_with(ranked)
        return cls(ranked.n, ranked.hexdigest(), own, overlap)
