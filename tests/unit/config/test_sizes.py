"""What jobs ask for, against what is known of real models."""

import pytest

from dass.config.sizes import IN_EVALUATION, job_memory

CALIBRATION = 128 * 2048
GB = 1000

# Parameters (billions), hidden size, blocks, entries of embedding and head.
LLAMA2_7B = (6.74, 4096, 32, 2 * 32_000)
LLAMA31_8B = (8.03, 4096, 32, 2 * 128_256)
GEMMA_7B = (8.54, 3072, 28, 256_000)
LLAMA2_70B = (68.98, 8192, 80, 2 * 32_000)
SMOLLM2_360M = (0.36, 960, 32, 49_152)


@pytest.mark.parametrize("model", [LLAMA2_7B, LLAMA31_8B, GEMMA_7B, LLAMA2_70B, SMOLLM2_360M])
def test_a_job_gets_what_the_engine_keeps(model: tuple[float, int, int, int]) -> None:
    billions, hidden, blocks, vocabulary = model
    kept = 2 * (vocabulary * hidden + 2 * billions * 1e9 / blocks)
    for states in (2 * CALIBRATION, IN_EVALUATION):
        needed = (kept + 2 * states * hidden) / 1e6
        assert job_memory(billions, "bfloat16", states) > 1500 + needed


def test_hand_computed() -> None:
    """LLaMA2-7B: 4.3 GB of states, 0.84 GB of blocks, 2.1 GB around them, 2.5 GB else."""
    assert job_memory(6.74, "float16", 2 * CALIBRATION) == pytest.approx(9.73 * GB, rel=0.01)


def test_more_is_asked_for_more() -> None:
    least = job_memory(6.74, "float16", 0)
    assert job_memory(6.74, "float32", 0) > least
    assert job_memory(13, "float16", 0) > least
    assert job_memory(6.74, "float16", 0, grams=True) == pytest.approx(least + 1.96 * GB, rel=0.01)


def test_a_standin_needs_little_more_than_the_libraries() -> None:
    assert job_memory(0.001, "float32", 2 * 64 * 256) < 2 * GB
