"""The requests of zero-shot tasks: lm-eval's own task definitions, on local files.

lm-eval builds the prompts and knows the answers; what a model is asked is the same in each of its
runs, and so is built once.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dass.errors import ConfigError, DataError
from dass.evaluation.requests import LogLikelihood, Request, TaskRequests
from dass.evaluation.task_rows import fitting, local_dataset, task_file
from dass.tasks import TASKS
from dass.terms import Bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_requests(
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, Path],
    *,
    max_length: int,
    limit: int | None = None,
    seed: int = 0,
    bos: Bos,
) -> dict[str, TaskRequests]:
    """What is asked of a model in some of the tasks.

    Args:
        tokenizer: of the model.
        tasks: the task's name, and the folder with its data in the official columns:
            ``test.jsonl`` or ``validation.jsonl``, as :data:`dass.tasks.TASKS` says. No other split
            is read.
        max_length: the longest input in tokens; longer requests lose tokens on the left.
        limit: use only the first rows of each task, this many; None: all.
        seed: handed to lm-eval, which draws nothing for zero shots.
        bos: ``text`` or ``window``. Both mean here that each request begins with what the
            tokenizer itself puts in front of a text: each request is a text and a window of its
            own. This is what lm-eval does.

    Raises:
        ConfigError: unknown task or ``bos``, ``limit`` or ``max_length`` below 1.
        DataError: a file is missing or empty, or a row does not fit its task.

    Source: EleutherAI's lm-evaluation-harness, release 0.4.13, as ``lm_eval.evaluator`` runs it
    with ``HFLM``; the paper's table of zero-shot tasks was made with that harness.
    """
    _check_settings(tasks, max_length, limit, bos)
    with _quiet(), _templates_compiled_once():
        files = {name: task_file(name, folder) for name, folder in tasks.items()}
        loaded = {name: _load(name, files[name], limit, seed) for name in tasks}
        return {
            name: _requests(name, loaded[name], files[name], tokenizer, max_length)
            for name in tasks
        }


def language_model(
    scorer: Callable[[list[Request]], Sequence[LogLikelihood]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Any:
    """An lm-eval ``LM`` whose log-likelihoods come from a scorer.

    It tokenises as lm-eval's ``HFLM`` with its defaults does, and cuts requests as that does. It
    has no ``loglikelihood_rolling`` and no ``generate_until``. ``requests`` keeps what the last
    call of ``loglikelihood`` sent.
    """
    # The class stands in here because lm-eval is imported late: with data sets it takes 0.6 s.
    from lm_eval.api.model import TemplateLM

    prefix = _prefix_token(tokenizer)
    begin = tokenizer.decode(prefix)

    class ScorerLM(TemplateLM):  # type: ignore[misc]
        """Sends all requests to the scorer at once."""

        requests: Sequence[Request] = ()

        @property
        def eot_token_id(self) -> Any:
            return tokenizer.eos_token_id

        @property
        def prefix_token_id(self) -> int:
            return prefix

        @lru_cache(maxsize=16)  # noqa: B019 (the choices of a question share their context)
        def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
            # A text that already begins with BOS gets no second one.
            if add_special_tokens is None and string.startswith(begin):
                add_special_tokens = False
            wish = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
            return list(tokenizer.encode(string, **wish))

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[LogLikelihood]:
            return list(super().loglikelihood(requests, disable_tqdm=disable_tqdm))

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[LogLikelihood]:
            self.requests = [_cut(text, c, t, max_length) for text, c, t in requests]
            return list(scorer(list(self.requests)))

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            raise NotImplementedError("perplexity is measured by dass.evaluation.perplexity")

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            raise NotImplementedError("the scorer scores continuations, it writes none")

    return ScorerLM()


def _prefix_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands before a continuation without context: BOS, or else EOS."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise DataError("zero-shot: the tokenizer has neither BOS nor EOS; give the model's own one")


def _cut(
    text: tuple[str, str], context: list[int], continuation: list[int], max_length: int
) -> Request:
    """Drop tokens on the left until all but the last token fit: the last one is never read."""
    if not 0 < len(continuation) <= max_length:
        raise DataError(
            f"zero-shot: the continuation {text[1][:60]!r} has {len(continuation)} tokens; "
            f"from 1 to {max_length} (the model's longest input) are possible; mend or remove its "
            "row"
        )
    if not context:
        raise DataError(
            f"zero-shot: the context {text[0][:60]!r} has no tokens; mend or remove its row"
        )
    return context[-(max_length + 1 - len(continuation)) :], continuation


def _check_settings(
    tasks: Mapping[str, Path], max_length: int, limit: int | None, bos: Bos
) -> None:
    for name in tasks:
        if name not in TASKS:
            raise ConfigError(f"zero-shot: unknown task {name!r}; there are {', '.join(TASKS)}")
    if bos not in ("text", "window"):
        raise ConfigError(f"zero-shot: bos is {bos!r}; it can be text or window")
    if limit is not None and limit < 1:
        raise ConfigError(f"zero-shot: limit is {limit}; give at least 1, or none for all rows")
    if max_length < 1:
        raise ConfigError(f"zero-shot: max_length is {max_length}; give at least 1")


# --- lm-eval ----------------------------------------------------------------------------------

# Tasks' own methods are called here rather than lm_eval.evaluator.evaluate: that builds the same
# requests, but draws progress bars that cannot be switched off and maps HellaSwag's rows three
# times over. The tests hold the two against each other.


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's and data sets' notes and progress bars; as before afterwards."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


@contextmanager
def _templates_compiled_once() -> Iterator[None]:
    """lm-eval compiles a template again for each row, which is three quarters of its own time."""
    from lm_eval.utils import env

    compiled = lru_cache(maxsize=64)(env.from_string)
    env.from_string = compiled
    try:
        yield
    finally:
        del env.from_string


def _load(name: str, file: Path, limit: int | None, seed: int) -> Any:
    """lm-eval's task object for its own definition, reading our file."""
    import lm_eval.tasks

    definition = Path(lm_eval.tasks.__file__).parent / TASKS[name].file
    settings = {
        "include": str(definition),
        "task": name,
        "dataset_kwargs": {"task": name, "file": str(file), "limit": limit},
        "fewshot_config": {"samples": []},  # else all of the training split is read, for nothing
    }
    # JSON is YAML; only the function needs YAML's own notation.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
    lines.append(f"custom_dataset: !function {local_dataset.__module__}.{local_dataset.__name__}")
    with tempfile.TemporaryDirectory(prefix="dass-zero-shot-") as scratch:
        (Path(scratch) / f"{name}.yaml").write_text("\n".join(lines), encoding="utf-8")
        manager = lm_eval.tasks.TaskManager(include_path=scratch, include_defaults=False)
        with fitting(f"{name}: {file}"):
            task = manager.load([name])["tasks"][name]
    task.set_fewshot_seed(seed)
    return task


def _requests(
    name: str, task: Any, file: Path, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> TaskRequests:
    """What lm-eval asks about each row, and what it takes for right."""
    instances: list[Any] = []
    choices, answers, characters = list[int](), list[int](), list[int]()
    for number, row in enumerate(task.task_docs, 1):
        where = f"{name}: {file}: row {number}"
        with fitting(where):
            context = task.fewshot_context(doc=row, num_fewshot=0)
            own = task.construct_requests(doc=row, ctx=context, metadata=(name, number - 1, 1))
            if not all(text.strip() for instance in own for text in instance.args):
                raise ValueError("a question or a choice is blank")
            answers.append(_answer(task, row, len(own), where))
            characters += map(len, task.doc_to_choice(row))
        instances += own
        choices.append(len(own))
    if len(characters) != len(instances):
        raise DataError(f"{name}: asks something else than its choices, which is not understood")
    model = language_model(lambda asked: [(0.0, False)] * len(asked), tokenizer, max_length)
    model.loglikelihood(instances)
    normed = "acc_norm" in task.aggregation()
    return TaskRequests(
        list(model.requests), choices, answers, characters, normed, version=task.VERSION
    )


def _answer(task: Any, row: Any, choices: int, where: str) -> int:
    """The choice that lm-eval calls right, asked with each in turn as the likeliest."""

    def is_right(choice: int) -> bool:
        scores = [(-float(other != choice), False) for other in range(choices)]
        return bool(task.process_results(row, scores)["acc"])

    right = [choice for choice in range(choices) if is_right(choice)]
    if len(right) != 1:
        raise DataError(f"{where}: has {len(right)} right answers; mend or remove it")
    return right[0]
