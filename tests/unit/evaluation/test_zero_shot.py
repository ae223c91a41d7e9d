"""Zero-shot accuracy against lm-eval's own evaluator and models, and against hand counts."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import dass
from dass.errors import ConfigError, DataError, NumericError
from dass.evaluation.harness import language_model
from dass.evaluation.requests import LogLikelihood, Request, requests_hash
from dass.evaluation.scores import score_continuations
from dass.evaluation.zero_shot import evaluate
from dass.models.streamed import StreamedModel
from dass.results.schema import TaskAccuracy
from dass.tasks import TASKS

FILES = {name: f"{task.split}.jsonl" for name, task in TASKS.items()}
"""lm-eval's own loading, which the tests compare with, fails on a wrong split."""
PETS = ["a cat", "a big dog", "the old  horse", "a goldfish", "one hen", "Émile's duck"]
PLACES = ["in the barn", "on a roof", "under the bed ", "by the sea", "at home", "far away"]


def hellaswag(n: int) -> dict[str, Any]:
    pet = PETS[n % 6]
    endings = [f"sleeps {p}." for p in PLACES[:3]] + ["[substeps] runs [title] it is late."]
    return {
        "ind": n,
        "activity_label": "Feeding pets",
        "ctx_a": f"[header] How to feed {pet} [title] Begin.",
        "ctx_b": f"then {pet}",
        "ctx": f"How to feed {pet} then {pet}",
        "endings": endings[n % 4 :] + endings[: n % 4],
        "label": str(n % 4),
    }


def winogrande(n: int) -> dict[str, Any]:
    first, second = PETS[n % 6], PETS[(n + 1) % 6]
    text = f"We sold {first} and kept {second} because _ was {PLACES[n % 6]} all day."
    return {"sentence": text, "option1": first, "option2": second, "answer": str(1 + n % 2)}


def arc(n: int) -> dict[str, Any]:
    labels = ["A", "B", "C", "D", "E"] if n % 3 else ["1", "2", "3"]
    choices = {"text": (PLACES[n % 2 :] + PETS)[: len(labels)], "label": labels}
    answer = labels[n % len(labels)]
    return {"id": f"q{n}", "question": f"Where is {PETS[n % 6]}?", "choices": choices,
            "answerKey": answer}  # fmt: skip


def piqa(n: int) -> dict[str, Any]:
    goal = f"Where to keep {PETS[n % 6]}?"
    return {"goal": goal, "sol1": PLACES[n % 6], "sol2": f"Ask {PETS[-n % 6]}.", "label": n % 2}


def boolq(n: int) -> dict[str, Any]:
    passage = f"We keep {PETS[n % 6]}. It sleeps {PLACES[n % 6]}."
    return {"idx": n, "passage": passage, "question": f"is it {PLACES[-n % 6]}", "label": n % 2}


def rte(n: int) -> dict[str, Any]:
    premise, hypothesis = f"We keep {PETS[n % 6]}.", f"There is {PETS[-n % 6]} {PLACES[n % 6]}."
    return {"idx": n, "premise": premise, "hypothesis": hypothesis, "label": n % 2}


def openbookqa(n: int) -> dict[str, Any]:
    labels = ["A", "B", "C", "D"]
    choices = {"text": PLACES[n % 2 :][:4], "label": labels}
    return {"id": f"q{n}", "question_stem": f"One finds {PETS[n % 6]}", "choices": choices,
            "answerKey": labels[n % 4]}  # fmt: skip


ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "hellaswag": hellaswag,
    "winogrande": winogrande,
    "arc_easy": arc,
    "arc_challenge": arc,
    "piqa": piqa,
    "boolq": boolq,
    "sglue_rte": rte,
    "openbookqa": openbookqa,
}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Nine rows a task; of train there are two, which only lm-eval's own loading needs."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, file in FILES.items():
        start = 20 if name == "arc_challenge" else 0
        write(folder / name / file, [ROWS[name](start + n) for n in range(9)])
        write(folder / name / "train.jsonl", [ROWS[name](n) for n in (50, 51)])
    return {name: folder / name for name in FILES}


# --- Tokenizers and models ---------------------------------------------------------------------


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def train(tokenizer: Tokenizer, bos: bool) -> PreTrainedTokenizerFast:
    """Learnt from the rows; with ``bos`` the tokenizer puts <s> in front by itself."""
    text = [json.dumps(make(n), ensure_ascii=False) for make in ROWS.values() for n in range(40)]
    special = ["<unk>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    names = {"unk_token": "<unk>", "eos_token": "</s>"} | ({"bos_token": "<s>"} if bos else {})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}


def llama(vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **SIZES)).eval()


def gemma(vocabulary: int) -> GemmaForCausalLM:
    torch.manual_seed(1)
    config = GemmaConfig(vocab_size=vocabulary, num_key_value_heads=1, head_dim=8, **SIZES)
    return GemmaForCausalLM(config).eval()


CASES = {
    "llama": (llama, byte_level, True),
    "gemma": (gemma, metaspace, True),
    "no-bos": (llama, metaspace, False),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Any, PreTrainedTokenizerFast]:
    make_model, make_tokenizer, bos = CASES[request.param]
    tokenizer = train(make_tokenizer(), bos)
    return make_model(len(tokenizer)), tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train(byte_level(), bos=True)


class WholeModel:
    """The slow, obvious scorer: one request, one pass of the whole model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.calls: list[list[Request]] = []

    @torch.inference_mode()
    def score(self, context: list[int], continuation: list[int]) -> LogLikelihood:
        logits = self.model(torch.tensor([context + continuation])).logits[0].double()
        rows = logits.log_softmax(-1)[len(context) - 1 : -1]
        wanted = torch.tensor(continuation)
        likelihood = rows[torch.arange(len(wanted)), wanted].sum()
        return float(likelihood), bool((rows.argmax(-1) == wanted).all())

    def __call__(self, requests: list[Request]) -> list[LogLikelihood]:
        self.calls.append(requests)
        return [self.score(*request) for request in requests]


# --- lm-eval's own way -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """lm-eval's tasks, loaded by its own means: data sets' JSON reader, all splits."""
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("definitions")
    for name, path in data.items():
        # The ARC definitions name a validation split too, which nothing asks for.
        splits = {"train": str(path / "train.jsonl"), FILES[name][:-6]: str(path / FILES[name])}
        kwargs = {"data_files": splits, "cache_dir": str(folder / "cache")}
        definition = Path(lm_eval.tasks.__file__).parent / TASKS[name].file
        (folder / f"{name}.yaml").write_text(
            f"include: {definition}\ntask: {name}\ndataset_path: json\ndataset_name: null\n"
            f"dataset_kwargs: {json.dumps(kwargs)}\n"
        )
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return manager.load(list(data))


def lm_eval_model(model: Any, tokenizer: Any, max_length: int, batch_size: int = 4) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, max_length=max_length, batch_size=batch_size)


def lm_eval_says(lm: Any, official: Any, **more: Any) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate as lm_eval_evaluate

    for task in official["tasks"].values():
        task._instances = None
    return lm_eval_evaluate(lm=lm, task_dict=official, bootstrap_iters=1000, **more)


def test_a_streamed_model_scores_as_lm_eval_does(
    case: tuple[Any, Any], data: dict[str, Path], official: Any, tmp_path: Path
) -> None:
    """All tasks, the model read block by block in several sweeps, against HFLM whole."""
    model, tokenizer = case
    model.save_pretrained(tmp_path)
    scored: list[LogLikelihood] = []

    def scorer(requests: list[Request]) -> list[LogLikelihood]:
        scored.extend(score_continuations(StreamedModel(tmp_path, torch.float32), requests))
        return scored

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dass.evaluation.likelihood.tokens_in_a_sweep", lambda model: 900)
        patch.setattr("dass.models.batches.TOKENS_IN_FLIGHT", {"cpu": 300})
        ours = evaluate(scorer, tokenizer, data, max_length=200, bos="text")
    theirs = lm_eval_says(lm_eval_model(model, tokenizer, 200), official)
    likelihoods = iter(scored)
    for name in FILES:
        assert ours[name].acc == theirs["results"][name]["acc,none"]
        assert ours[name].acc_norm == theirs["results"][name].get("acc_norm,none")
        for sample in theirs["samples"][name]:
            for ((likelihood, greedy),) in sample["resps"]:
                mine, my_greedy = next(likelihoods)
                assert mine == pytest.approx(likelihood, abs=1e-4)
                assert my_greedy == greedy
    assert next(likelihoods, None) is None


@pytest.mark.parametrize("max_length", [200, 16], ids=["whole", "cut"])
def test_equals_lm_eval(
    case: tuple[Any, Any], data: dict[str, Path], official: Any, max_length: int
) -> None:
    model, tokenizer = case
    scorer = WholeModel(model)
    ours = evaluate(scorer, tokenizer, data, max_length=max_length, bos="text")
    theirs = lm_eval_says(lm_eval_model(model, tokenizer, max_length), official)

    assert len(scorer.calls) == 1  # everything at once
    likelihoods = iter(scorer(scorer.calls[0]))
    for name in FILES:
        expected = theirs["results"][name]
        result = ours[name]
        assert result.acc == expected["acc,none"]
        assert result.acc_norm == expected.get("acc_norm,none")
        assert result.acc_stderr == pytest.approx(expected["acc_stderr,none"], abs=1e-12)
        norm_stderr = expected.get("acc_norm_stderr,none")
        assert result.acc_norm_stderr == (norm_stderr and pytest.approx(norm_stderr, abs=1e-12))
        assert result.samples == theirs["n-samples"][name]["effective"] == 9
        assert result.version == theirs["versions"][name]
        for sample in theirs["samples"][name]:
            for ((likelihood, greedy),) in sample["resps"]:
                mine, my_greedy = next(likelihoods)
                assert mine == pytest.approx(likelihood, abs=1e-4)
                assert my_greedy == greedy
    assert next(likelihoods, None) is None
    assert (ours["winogrande"].acc_norm is None) and (ours["piqa"].acc_norm is not None)
    # The comparison says something: the cut cuts, and not every task is all hits or all misses.
    longest = max(len(c) + len(t) for c, t in scorer.calls[0])
    assert longest == 17 if max_length == 16 else 17 < longest < 200
    assert any(0 < result.acc < 1 for result in ours.values())


def test_limit_equals_lm_eval(tokenizer: Any, data: dict[str, Path], official: Any) -> None:
    model = llama(len(tokenizer))
    ours = evaluate(WholeModel(model), tokenizer, data, max_length=200, limit=4, bos="window")
    theirs = lm_eval_says(lm_eval_model(model, tokenizer, 200, batch_size=1), official, limit=4)
    for name in FILES:
        assert ours[name].samples == theirs["n-samples"][name]["effective"] == 4
        assert ours[name].acc == theirs["results"][name]["acc,none"]
        assert ours[name].acc_norm == theirs["results"][name].get("acc_norm,none")


def test_our_lm_runs_under_lm_evals_evaluator(
    tokenizer: Any, data: dict[str, Path], official: Any
) -> None:
    scorer = WholeModel(llama(len(tokenizer)))
    theirs = lm_eval_says(language_model(scorer, tokenizer, 200), official)
    ours = evaluate(scorer, tokenizer, data, max_length=200, bos="text")
    assert {n: theirs["results"][n]["acc,none"] for n in FILES} == {
        n: r.acc for n, r in ours.items()
    }
    assert scorer.calls[0] == scorer.calls[1]


@pytest.mark.parametrize("text", [
    ("", " a cat"), ("A dog ", "sleeps"), ("A dog  ", " sleeps"), ("<s>A dog", " sleeps"),
    ("", "<s> a cat"), ("", "</s> a cat"), ("Émile's\n", "duck "),
])  # fmt: skip
def test_tokens_as_hflm(case: tuple[Any, Any], text: tuple[str, str]) -> None:
    from lm_eval.api.instance import Instance

    model, tokenizer = case
    theirs = lm_eval_model(model, tokenizer, 200)
    sent: list[Any] = []
    theirs._loglikelihood_tokens = lambda requests, **_: sent.extend(requests) or []
    ours = language_model(lambda requests: [(-1.0, False)] * len(requests), tokenizer, 200)
    request = Instance("loglikelihood", doc={}, arguments=text, idx=0)
    theirs.loglikelihood([request], disable_tqdm=True)
    assert ours.loglikelihood([request]) == [(-1.0, False)]
    assert ours.requests == [(context, continuation) for _, context, continuation in sent]


# --- By hand -----------------------------------------------------------------------------------


def test_counts_by_hand(tmp_path: Path, tokenizer: Any) -> None:
    """Four questions; choice "no" has 2 characters, "perhaps" has 7.

    By sum -3.0 ("no") beats -3.5 ("perhaps"); by character -1.5 loses to -0.5.
    """
    rows = [
        {"goal": f"Question {n}", "sol1": "no", "sol2": "perhaps", "label": label}
        for n, label in enumerate([0, 1, 1, 1])
    ]
    write(tmp_path / "validation.jsonl", rows)
    scores = [(-3.0, False), (-3.5, True)] * 3 + [(-9.0, False), (-1.0, False)]
    result = evaluate(lambda _: scores, tokenizer, {"piqa": tmp_path}, max_length=99, bos="text")
    # Picked by sum: 0, 0, 0, 1: right, wrong, wrong, right. By character: 1, 1, 1, 1.
    assert (result["piqa"].acc, result["piqa"].acc_norm) == (0.5, 0.75)
    # Sample variances 1/3 and 1/4, each over 4.
    assert result["piqa"].acc_stderr == pytest.approx(math.sqrt(1 / 3 / 4))
    assert result["piqa"].acc_norm_stderr == pytest.approx(math.sqrt(1 / 4 / 4))
    assert result["piqa"].samples == 4


def test_one_sample_has_no_standard_error(data: dict[str, Path], tokenizer: Any) -> None:
    result = evaluate(
        fixed, tokenizer, {"arc_easy": data["arc_easy"]}, max_length=99, limit=1, bos="text"
    )["arc_easy"]
    assert (result.samples, result.acc_stderr, result.acc_norm_stderr) == (1, None, None)


def test_results_fit_the_result_file(data: dict[str, Path], tokenizer: Any) -> None:
    for result in evaluate(fixed, tokenizer, data, max_length=99, limit=3, bos="text").values():
        assert TaskAccuracy.model_validate(asdict(result)).model_dump() == asdict(result)


def test_hash_tells_requests_apart(data: dict[str, Path], tokenizer: Any) -> None:
    seen: list[Request] = []

    def scorer(requests: list[Request]) -> list[LogLikelihood]:
        seen.extend(requests)
        return fixed(requests)

    tasks = {name: data[name] for name in ("piqa", "winogrande")}
    both = evaluate(scorer, tokenizer, tasks, max_length=99, bos="text")
    expected = hashlib.sha256()
    for context, continuation in seen[:18]:  # nine rows with two choices
        numbers = [len(context), len(continuation), *context, *continuation]
        expected.update(b"".join(struct.pack("<q", number) for number in numbers))
    assert both["piqa"].requests_hash == expected.hexdigest()
    assert both["winogrande"].requests_hash == requests_hash(seen[18:])
    assert requests_hash([([1, 2], [3])]) != requests_hash([([1], [2, 3])])
    alone = evaluate(fixed, tokenizer, {"piqa": data["piqa"]}, max_length=99, bos="text")
    assert alone["piqa"] == both["piqa"]
    fewer = evaluate(fixed, tokenizer, {"piqa": data["piqa"]}, max_length=99, limit=8, bos="text")
    assert fewer["piqa"].requests_hash != both["piqa"].requests_hash


def fixed(requests: list[Request]) -> list[LogLikelihood]:
    """Any score, the same for the same request."""
    return [(-float(sum(context + t) % 97 + 1), False) for context, t in requests]


# --- Manners -----------------------------------------------------------------------------------

CHILD = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from transformers import PreTrainedTokenizerFast
import dass.evaluation.zero_shot
assert not {"torch", "lm_eval", "datasets"} & set(sys.modules) - EARLY
tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
def fixed(requests):
    return [(-float(sum(c + t) % 97 + 1), False) for c, t in requests]
tasks = {name: Path(path) for name, path in json.loads(sys.argv[2]).items()}
results = dass.evaluation.zero_shot.evaluate(fixed, tokenizer, tasks, max_length=200, bos="text")
print(json.dumps({name: asdict(result) for name, result in results.items()}))
""".replace(
    "import dass.evaluation.zero_shot\n",
    "EARLY = set(sys.modules)\nimport dass.evaluation.zero_shot\n",
    1,
)


@pytest.mark.slow
def test_two_at_once_write_nothing_and_say_nothing(
    data: dict[str, Path], tokenizer: Any, tmp_path: Path
) -> None:
    """Two processes on the same files, offline, in an empty home; they agree with this one."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    for folder in ("home", "scratch"):
        (tmp_path / folder).mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    environment = kept | {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "scratch"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(dass.__file__).parents[1]),
    }
    paths = json.dumps({name: str(path) for name, path in data.items()})
    command = [sys.executable, "-c", CHILD, str(tmp_path / "tokenizer"), paths]
    children = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    before = {path: sorted(p.name for p in path.iterdir()) for path in data.values()}
    here = evaluate(fixed, tokenizer, data, max_length=200, bos="text")
    for child in children:
        out, err = child.communicate(timeout=120)
        assert (child.returncode, err) == (0, "")
        assert {n: r["requests_hash"] for n, r in json.loads(out).items()} == {
            n: r.requests_hash for n, r in here.items()
        }
        assert {n: r["acc"] for n, r in json.loads(out).items()} == {
            n: r.acc for n, r in here.items()
        }
    assert list((tmp_path / "home").rglob("*")) == []
    assert list((tmp_path / "scratch").rglob("*")) == []
    assert {path: sorted(p.name for p in path.iterdir()) for path in data.values()} == before


@pytest.fixture
def loud() -> Iterator[None]:
    import datasets

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    bars = datasets.are_progress_bars_disabled()
    datasets.enable_progress_bars()
    yield
    logger.setLevel(level)
    if bars:
        datasets.disable_progress_bars()


@pytest.mark.usefixtures("loud")
def test_quiet_and_settings_put_back(
    data: dict[str, Path],
    tokenizer: Any,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    import datasets
    from lm_eval.utils import env

    evaluate(fixed, tokenizer, data, max_length=200, bos="text")
    assert "from_string" not in vars(env)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert logging.getLogger("lm_eval").level == logging.DEBUG
    assert not datasets.are_progress_bars_disabled()


def test_needs_the_evaluated_split_only(tmp_path: Path, tokenizer: Any) -> None:
    for name, file in FILES.items():
        write(tmp_path / name / file, [ROWS[name](n) for n in range(3)])
    tasks = {name: tmp_path / name for name in FILES}
    results = evaluate(fixed, tokenizer, tasks, max_length=200, bos="text")
    assert {name: result.samples for name, result in results.items()} == dict.fromkeys(FILES, 3)


# --- Bad input ---------------------------------------------------------------------------------


def never(requests: list[Request]) -> list[LogLikelihood]:
    raise AssertionError("scored before the data was found wanting")


def failing(name: str, folder: Path, tokenizer: Any, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        evaluate(never, tokenizer, {name: folder}, max_length=99, bos="text")
    message = str(caught.value)
    assert "\n" not in message and name in message
    return message


@pytest.mark.parametrize("name", FILES)
def test_missing_file(name: str, tmp_path: Path, tokenizer: Any) -> None:
    write(tmp_path / "train.jsonl", [ROWS[name](0)])
    message = failing(name, tmp_path, tokenizer, DataError)
    assert str(tmp_path / FILES[name]) in message and "no such file" in message


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_empty_file(content: str, tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "validation.jsonl").write_text(content)
    message = failing("piqa", tmp_path, tokenizer, DataError)
    assert str(tmp_path / "validation.jsonl") in message and "no rows" in message


@pytest.mark.parametrize(
    ("name", "column"), [(name, column) for name in TASKS for column in TASKS[name].columns]
)
def test_missing_column(name: str, column: str, tmp_path: Path, tokenizer: Any) -> None:
    rows = [ROWS[name](n) for n in range(3)]
    del rows[1][column]
    write(tmp_path / FILES[name], rows)
    message = failing(name, tmp_path, tokenizer, DataError)
    assert f"{tmp_path / FILES[name]}: line 2" in message and repr(column) in message


@pytest.mark.parametrize(
    ("name", "wrong", "expected"),
    [
        (
            "hellaswag",
            {"label": ""},
            "none of ['0', '1', '2', '3']",
        ),  # hidden answers of a test split
        ("hellaswag", {"label": "4"}, "the answer '4' in column 'label' is none of"),
        ("hellaswag", {"endings": "one"}, "'endings' holds str"),
        ("winogrande", {"answer": ""}, "none of ['1', '2']"),
        ("winogrande", {"sentence": "no gap"}, "does not fit"),
        ("arc_easy", {"answerKey": "Z"}, "the answer 'Z'"),
        ("arc_easy", {"choices": {"text": ["a"]}}, "does not fit the task (KeyError"),
        (
            "arc_challenge",
            {"choices": {"text": [], "label": ["A", "B"]}, "answerKey": "A"},
            "0 choices need as many labels",
        ),
        ("arc_challenge", {"question": 7}, "'question' holds int"),
        ("piqa", {"label": -1}, "none of [0, 1]"),
        ("piqa", {"label": "1"}, "'label' holds str"),
        ("piqa", {"goal": None}, "'goal' holds NoneType"),
        ("boolq", {"label": -1}, "none of [0, 1]"),
        ("sglue_rte", {"label": True}, "'label' holds bool"),
        ("openbookqa", {"answerKey": "E"}, "the answer 'E'"),
    ],
)
@pytest.mark.parametrize("row", [0, 2])
def test_rows_that_do_not_fit(
    name: str, wrong: dict[str, Any], expected: str, row: int, tmp_path: Path, tokenizer: Any
) -> None:
    rows = [ROWS[name](n) for n in range(3)]
    rows[row] |= wrong
    write(tmp_path / FILES[name], rows)
    message = failing(name, tmp_path, tokenizer, DataError)
    assert expected in message and str(tmp_path / FILES[name]) in message


def test_not_json(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "validation.jsonl").write_text(json.dumps(piqa(0)) + "\n{half a row\n")
    assert "line 2: not valid JSON" in failing("piqa", tmp_path, tokenizer, DataError)


def test_unknown_task(tmp_path: Path, tokenizer: Any) -> None:
    assert "hellaswag, winogrande" in failing("mmlu", tmp_path, tokenizer, ConfigError)


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"bos": "never"}, {"max_length": 0}])
def test_bad_settings(wrong: dict[str, Any], data: dict[str, Path], tokenizer: Any) -> None:
    settings: dict[str, Any] = {"max_length": 99, "bos": "text"} | wrong
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        evaluate(never, tokenizer, data, **settings)


def test_continuation_longer_than_the_model(data: dict[str, Path], tokenizer: Any) -> None:
    with pytest.raises(DataError, match="from 1 to 2 "):
        evaluate(never, tokenizer, data, max_length=2, bos="text")


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_scores_that_are_no_numbers(value: float, data: dict[str, Path], tokenizer: Any) -> None:
    def broken(requests: list[Request]) -> list[LogLikelihood]:
        return [*fixed(requests[1:]), (value, False)]

    with pytest.raises(NumericError, match="log-likelihood"):
        evaluate(broken, tokenizer, data, max_length=99, bos="text")


def test_scores_for_each_request(data: dict[str, Path], tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="zip"):
        evaluate(lambda r: fixed(r)[1:], tokenizer, data, max_length=99, bos="text")


def test_blank_context(tmp_path: Path) -> None:
    """lm-eval moves trailing spaces into the continuation; here nothing would stay before it."""
    write(tmp_path / "validation.jsonl", [winogrande(0) | {"sentence": "_ barks.", "option1": " "}])
    with pytest.raises(DataError, match=r"row 1: .*a question or a choice is blank"):
        evaluate(
            never, train(byte_level(), False), {"winogrande": tmp_path}, max_length=99, bos="text"
        )


def test_tokenizer_without_bos_and_eos(data: dict[str, Path], tokenizer: Any) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=byte_level())
    with pytest.raises(DataError, match="neither BOS nor EOS"):
        evaluate(never, bare, data, max_length=99, bos="text")
