"""Masks from elsewhere: a checkpoint that somebody else pruned, or a file of masks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from dass.pruning.method import Argument, Comparison, Need, Statistics
from dass.pruning.patterns import Pattern
from dass.terms import Role

if TYPE_CHECKING:
    from torch import Tensor

    from dass.models.streamed import StreamedModel


@dataclass(frozen=True)
class Given:
    """Masks from elsewhere, taken as they are.

    ``path`` is a folder with a checkpoint, whose zeros are the mask and whose other values are kept
    even where they were moved; or a safetensors file: a pruned file of this project, or one bool or
    uint8 tensor [out, in] per pruned parameter, true where a weight is kept. Nothing else of the
    model may differ from the dense one.
    """

    path: Annotated[
        str,
        Argument(
            "Folder of a pruned checkpoint, or safetensors file of masks. `<model>` and "
            "`<pattern>` in it stand for those of the run."
        ),
    ]

    needs: ClassVar[frozenset[Need]] = frozenset()
    tolerance: ClassVar[float] = 1e-3
    """By which share of a matrix a mask may miss its pattern: others round, or prune ties, too."""

    tiles: ClassVar[bool] = True
    """Groups along both dimensions are looked for, too."""

    def __post_init__(self) -> None:
        """Refuse what Snakemake would fill in."""
        if set("{}") & set(self.path):
            raise ValueError("path has braces; write <model> and <pattern>, or rename it")
        if named := re.search(r"<(?!(?:model|pattern)>)[a-z][a-z0-9_]*>", self.path):
            raise ValueError(
                f"path has {named[0]}, but only <model> and <pattern> stand for something; "
                "rename it"
            )

    def comparison(self, role: Role) -> Comparison:
        """Nothing is compared; N:M groups are looked for along both axes."""
        return Comparison(scope="matrix", axis="input")

    def files(self) -> list[Path]:
        """What is read of ``path``; for the workflow, whose inputs they are.

        Raises:
            ModelError: the folder holds no checkpoint.
            DataError: there is no such file or folder.
        """
        from dass.data.model_folder import files_read
        from dass.errors import DataError

        path = Path(self.path)
        if not path.exists():
            raise DataError(f"{path} does not exist; give a checkpoint's folder or a file of masks")
        return files_read(path) if path.is_dir() else [path]

    def check_model(self, model: StreamedModel, source: Mapping[str, str]) -> dict[str, str]:
        """Check that the masks are of this model; returns hashes of where they are from.

        Raises:
            ModelError: they are of another model, or more than masked weights differs.
            DataError: the file is damaged, or holds no masks.
        """
        from dass.pruning.given_masks import given_masks

        return given_masks(self.path, model).check(model, source)

    def update(
        self, role: Role, weight: Tensor, statistics: Statistics, pattern: Pattern, name: str
    ) -> tuple[Tensor, Tensor]:
        """The given weight and mask of a projection [out, in], after :meth:`check_model`.

        Raises:
            PatternError: the mask is not of this pattern.
        """
        from dass.pruning.given_masks import check_pattern, opened
        from dass.terms import NEURON_DIM

        kept, mask = opened(self.path).weight_and_mask(role, weight, name)
        grouped = mask
        for order in self.order_of(name.rsplit(".", 2)[0]).values():
            grouped = mask.index_select(NEURON_DIM[role], order.to(mask.device))
        check_pattern(grouped, pattern, self.tolerance, name)
        return kept, mask

    def order_of(self, glu: str) -> dict[str, Tensor]:
        """The gated MLP -> int32 [neurons], the order in which its groups lie; else nothing."""
        from dass.pruning.given_masks import opened

        order = opened(self.path).order(glu)
        return {} if order is None else {glu: order.int()}
