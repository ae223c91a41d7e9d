"""The blocks that say which benchmarks are run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dass.config.types import Count, NamesOrAll, Patterns, RunName, Strict, failure


class SizesConfig(Strict):
    """Sizes of a decoder that is not one of the study's models; its weights are random."""

    hidden: Count = Field(description="Width of the hidden states.")
    intermediate: Count = Field(description="Neurons of the gated MLP.")
    heads: Count = Field(description="Attention heads.")
    key_value_heads: Count = Field(description="Key-value heads; as many as heads, or a divisor.")
    blocks: Count = Field(description="Decoder blocks of the whole model.")
    head_dim: Count | None = Field(
        default=None, description="Width of a head; without it, hidden / heads."
    )
    activation: Literal["silu", "gelu_pytorch_tanh"] = Field(
        default="silu", description="Activation function of the MLP."
    )

    @model_validator(mode="after")
    def _divides(self) -> SizesConfig:
        if self.heads % self.key_value_heads:
            raise failure(("key_value_heads", f"{self.heads} heads cannot share them evenly"))
        return self


class MetricSpeedConfig(Strict):
    """How long the pruning metric takes without calibration passes: every method and pattern."""

    of: NamesOrAll = Field(description="Keys of `models` or of `speed.shapes`, or `all` models.")
    repeats: Count = Field(default=5, description="Repeats that count, after the warm-up.")


class GpuSpeedConfig(Strict):
    """Dense against 2:4 on a GPU. Part of the study only where there is a GPU; elsewhere its table
    says `not measured here`."""

    of: NamesOrAll = Field(description="Keys of `models` or of `speed.shapes`, or `all` models.")
    tokens: list[Count] = Field(
        default=[1, 16, 128, 512, 2048, 8192], min_length=1, description="Tokens in a call."
    )
    repeats: Count = Field(default=20, description="Repeats that count, after the warm-up.")
    prefill: bool = Field(
        default=True,
        description="Also prefill with each pruned 2:4 model itself, end to end, where it fits.",
    )


class DeepSparseConfig(Strict):
    """DeepSparse 1.8.0 is at its end of life since June 2025 and its licence allows evaluation
    only. It is installed into an environment of its own, and sends no telemetry."""

    accept_evaluation_licence: bool = Field(
        description="Whether you accept Neural Magic's community licence, for evaluation only."
    )


class CpuSpeedConfig(Strict):
    """Dense against sparse on the CPU. torch (float32, bfloat16 and CSR) and onnxruntime are always
    measured, since a speed-up says nothing without good dense baselines."""

    of: NamesOrAll = Field(description="Keys of `models` or of `speed.shapes`, or `all` models.")
    engines: list[Literal["openvino", "deepsparse"]] = Field(
        default=[],
        description="Engines to measure besides; `openvino` must be installed "
        "(`pip install openvino`), `deepsparse` is installed by the workflow.",
    )
    deepsparse: DeepSparseConfig | None = Field(
        default=None, description="Your consent, needed where `engines` lists `deepsparse`."
    )
    patterns: Patterns = Field(
        default=["u50", "u60", "u70", "u80", "2of4"],
        description="Patterns of the sparse variants, spelled as in `experiments`.",
    )
    parts: list[Literal["mlp", "block"]] = Field(
        default=["mlp", "block"],
        min_length=1,
        description="What is timed: the gated MLP, the whole decoder block.",
    )
    tokens: list[Count] = Field(
        default=[1, 16, 256],
        min_length=1,
        description="Tokens in a call: 1 is the generation of text, many are prefill.",
    )
    repeats: Count = Field(default=9, description="Repeats that count, after the warm-up.")
    threads: Count | None = Field(
        default=None,
        description="Threads that every engine computes with; without it, all cores of the run. "
        "The benchmark has the machine's cores to itself in any case.",
    )

    @model_validator(mode="after")
    def _consent(self) -> CpuSpeedConfig:
        accepted = self.deepsparse is not None and self.deepsparse.accept_evaluation_licence
        if "deepsparse" in self.engines and not accepted:
            raise failure(
                (
                    "deepsparse",
                    "its licence allows evaluation only, and it is at its end of life; if that "
                    "suits you, set deepsparse: {accept_evaluation_licence: true}, "
                    "or remove deepsparse from engines",
                )
            )
        return self


class SpeedConfig(Strict):
    """What is measured of speed. Without this block, nothing; without one of its parts, not that
    part."""

    shapes: dict[RunName, SizesConfig] = Field(
        default={}, description="Sizes to measure besides those of the study's models, by name."
    )
    metric: MetricSpeedConfig | None = Field(
        default=None, description="Time of the pruning metrics."
    )
    gpu: GpuSpeedConfig | None = Field(default=None, description="2:4 on a GPU.")
    cpu: CpuSpeedConfig | None = Field(default=None, description="Sparse engines on the CPU.")
