"""The report's section on decoder blocks: the same tables and figures as the files."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dass.report.block_figures import block_captions, block_figures
from dass.report.block_tables import ERRORS, TITLE, BlockSettings, block_table, mean_error
from dass.report.document import Drawing, Section
from dass.report.words import format_percent, pattern_label
from dass.results.schema import ActivationsResult, BlocksResult


def block_sections(
    activations: Sequence[ActivationsResult],
    errors: Sequence[BlocksResult],
    settings: Mapping[str, Any] | None,
) -> list[Section]:
    """One section, or none where the study does not look into blocks.

    Args:
        activations, errors: results of these stages.
        settings: fields of :class:`BlockSettings`.
    """
    if settings is None:
        return []
    chosen = BlockSettings(**settings)
    captions = block_captions(errors, chosen)
    figures = block_figures(activations, errors, chosen)
    return [
        Section(
            title=TITLE,
            tables=[block_table(kind, errors, chosen) for kind in ERRORS],
            figures=[
                Drawing(figure, captions[name], f"figures/blocks/{name}.pdf")
                for name, figure in figures.items()
            ],
            findings=block_findings(activations, errors, chosen),
        )
    ]


def block_findings(
    activations: Sequence[ActivationsResult],
    errors: Sequence[BlocksResult],
    settings: BlockSettings,
) -> list[str]:
    """What the section shows, a sentence on activations and one on errors."""
    spread = "; ".join(_spread_of(result, settings) for result in activations)
    means = "; ".join(_means(errors, settings))
    found = [
        f"The loudest channel of a block: {spread}." if spread else "",
        f"Relative error of the GLUs' output, mean over blocks: {means}." if means else "",
    ]
    return [sentence for sentence in found if sentence]


def _spread_of(result: ActivationsResult, settings: BlockSettings) -> str:
    """Of each side the block with the loudest channel: how loud it is."""
    loudest = {}
    for side in ("intermediate", "input"):
        values = [getattr(block, side).percentiles["100"] for block in result.blocks]
        loudest[side] = max(values), values.index(max(values))
    (z, z_at), (x, x_at) = loudest["intermediate"], loudest["input"]
    return (
        f"{settings.models[result.model]} up to {z:.3g} times the median for the intermediate Z "
        f"(block {z_at}) and {x:.3g} times for the input X (block {x_at})"
    )


def _means(errors: Sequence[BlocksResult], settings: BlockSettings) -> Iterator[str]:
    """Per model and pattern the mean error of each method, lowest first."""
    found = {result.run: result for result in errors}
    for model, label in settings.models.items():
        for pattern in settings.patterns:
            runs = {name: settings.run(model, m, pattern) for m, name in settings.methods.items()}
            means = sorted(
                (mean_error(found[run], "glu_error"), name)
                for name, run in runs.items()
                if run in found
            )
            if means:
                said = ", ".join(f"{name} {format_percent(value)} %" for value, name in means)
                yield f"{label} at {pattern_label(pattern)}, {said}"
