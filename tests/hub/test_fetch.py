"""Fetching from the local hub by the real code: whole, resumed, refused."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dass.data.documents import Documents, read_rows
from dass.data.download import CHUNK
from dass.data.model_folder import check_folder
from dass.runtime.provenance import origin

from .conftest import C4, GUEST, PIQA, Client, with_small_disk, without_network
from .server import LocalHub, RemoteRepository

LLAMA = "meta-llama/Llama-2-13b-hf"  # in four shards of at most 600 kB
SHARD = "model-00002-of-00004.safetensors"


def repository(hub: LocalHub, name: str, kind: str = "model") -> RemoteRepository:
    found = hub.find(kind, name)
    assert found is not None
    return found


def requests_for(hub: LocalHub, file: str) -> list[tuple[int, int]]:
    """(first byte asked for, bytes sent) of each request for a large file."""
    return [(s.start, s.sent) for s in hub.log if s.host == "cdn" and s.path.endswith(file)]


def same_as_on_the_hub(folder: Path, there: RemoteRepository) -> bool:
    """Each file but the note of where they came from is the hub's, to the byte."""
    files = [path for path in folder.iterdir() if path.name != "fetched.json"]
    return all(path.read_bytes() == (there.folder / path.name).read_bytes() for path in files)


# --- What is fetched --------------------------------------------------------------------------


def test_of_a_model_only_weights_and_tokenizer_are_fetched(hub: LocalHub, client: Client) -> None:
    finished = client.model(LLAMA)
    assert finished.code == 0, finished.output
    there = repository(hub, LLAMA)
    assert {"pytorch_model.bin", "consolidated.safetensors", "modeling_custom.py"} < set(
        there.files
    )
    names = {path.name for path in (client.folder / "model").iterdir()}
    shards = {f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)}
    assert names == shards | {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "model.safetensors.index.json", "fetched.json",
    }  # fmt: skip
    asked = " ".join(served.path for served in hub.log)
    assert not any(word in asked for word in (".bin", ".pth", "consolidated", ".py"))
    assert same_as_on_the_hub(client.folder / "model", there)
    assert origin(client.folder / "model") == {"repository": LLAMA, "commit": there.commit}
    assert client.left() == ["model"]
    assert not (client.folder / ".model.download").exists()


def one_file(folder: Path) -> None:
    """The weights in one file as well, newer than the shards."""
    tensors = {n: t for f in sorted(folder.glob("model-*")) for n, t in load_file(f).items()}
    tensors["lm_head.weight"] = tensors["lm_head.weight"] * 0.5
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_of_shards_beside_one_file_the_one_is_fetched_as_transformers_reads_it(
    hub: LocalHub, client: Client, tmp_path: Path
) -> None:
    changed(hub, tmp_path, one_file)
    assert client.model(LLAMA).code == 0
    names = {path.name for path in (client.folder / "model").iterdir()}
    assert {name for name in names if "model" in name} == {"model.safetensors"}
    assert len(check_folder(client.folder / "model")) > 10


def test_progress_is_lines_with_files_bytes_and_rate(client: Client) -> None:
    client.model(LLAMA)
    log = (client.folder / "logs/fetch/fetch.log").read_text()
    assert "fetching model, weights: 4/4 files, 1.8 MB of 1.8 MB, " in log
    assert "MB/s" in log
    assert "%|" not in log  # no progress bar


def test_the_token_goes_to_the_hub_and_not_to_the_cdn(hub: LocalHub, client: Client) -> None:
    assert client.model(LLAMA).code == 0
    cdn = [served for served in hub.log if served.host == "cdn"]
    assert len(cdn) == 4
    assert not any(served.token for served in cdn)
    assert any(served.token for served in hub.log)


def test_a_commit_pins_a_model(hub: LocalHub, client: Client) -> None:
    commit = repository(hub, LLAMA).commit
    assert client.model(LLAMA, commit).code == 0
    said = json.loads((client.folder / "model/fetched.json").read_text())
    assert (said["revision"], said["commit"]) == (commit, commit)


def test_a_text_is_the_rows_of_its_configuration(hub: LocalHub, client: Client) -> None:
    """Of wikitext-2-raw-v1: the repository's other configuration holds three rows."""
    settings = PIQA | {"kind": "text", "hub": "Salesforce/wikitext", "name": "wikitext-2-raw-v1"}
    finished = client.dataset(settings)
    assert finished.code == 0, finished.output
    import datasets

    place = repository(hub, "Salesforce/wikitext", "dataset").folder / "wikitext-2-raw-v1"
    for split in ("train", "validation", "test"):
        file = str(place / f"{split}-00000-of-00001.parquet")
        rows = datasets.Dataset.from_parquet(file, cache_dir=str(client.folder / "home"))["text"]
        assert read_rows(client.folder / f"data/{split}.jsonl") == list(rows)
    assert len(read_rows(client.folder / "data/test.jsonl")) > 3


def test_c4_is_one_shard_unpacked_and_indexed(hub: LocalHub, client: Client) -> None:
    finished = client.dataset(C4)
    assert finished.code == 0, finished.output
    shard = repository(hub, "allenai/c4", "dataset").folder / C4["files"]
    packed, indexed = Documents(shard), Documents(client.folder / "data/documents.jsonl")
    assert len(indexed) == len(packed)
    assert [indexed[i] for i in range(len(packed))] == [packed[i] for i in range(len(packed))]
    assert not [served for served in hub.log if "00001-of-01024" in served.path]


# --- Interrupted ------------------------------------------------------------------------------


def part_of(client: Client, file: str) -> int:
    """Bytes of a file that an interrupted fetch kept."""
    (part,) = (client.folder / ".model.download").glob(f"*-{file}*.part")
    return part.stat().st_size


def test_a_killed_hub_costs_no_byte_that_had_arrived(hub: LocalHub, client: Client) -> None:
    hub.fail(SHARD, cut=400_000, die=True)
    line = client.model(LLAMA).error
    assert "the transfer ended at" in line and "Connection refused" in line
    assert client.left() == []
    kept = part_of(client, SHARD)
    assert kept > 400_000 - CHUNK
    whole = {p.name for p in (client.folder / ".model.download").iterdir() if p.suffix != ".part"}
    before = len(hub.log)

    hub.start()
    finished = client.model(LLAMA)
    assert finished.code == 0, finished.output
    there = repository(hub, LLAMA)
    assert same_as_on_the_hub(client.folder / "model", there)
    assert requests_for(hub, SHARD)[-1] == (kept, there.files[SHARD]["size"] - kept)
    again = {Path(served.path).name for served in hub.log[before:] if served.sent}
    assert not {name.partition("-")[2] for name in whole} & again


def wait_for_part(client: Client, file: str) -> None:
    """Until some of a file has reached the disk."""
    deadline = time.monotonic() + 60
    while not [p for p in client.folder.glob(f".model.download/*-{file}.part") if p.stat().st_size]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_client_goes_on_where_it_stopped(hub: LocalHub, client: Client) -> None:
    hold = threading.Event()
    hub.fail(SHARD, cut=400_000, hold=hold)
    process = client.start(f"fetch_model({LLAMA!r}, 'main', 'model')")
    wait_for_part(client, SHARD)
    process.kill()
    process.communicate()
    hold.set()
    assert client.left() == []
    kept = part_of(client, SHARD)

    finished = client.model(LLAMA)
    assert finished.code == 0, finished.output
    there = repository(hub, LLAMA)
    assert requests_for(hub, SHARD)[-1] == (kept, there.files[SHARD]["size"] - kept)
    assert same_as_on_the_hub(client.folder / "model", there)


def test_one_file_that_fails_costs_the_others_nothing(hub: LocalHub, client: Client) -> None:
    """One shard's checksum is wrong while another one is half there."""
    half, wrong = threading.Event(), threading.Event()
    hub.fail(SHARD, cut=400_000, hold=half)
    hub.fail("model-00003-of-00004.safetensors", damage=True, hold=wrong)
    client.environment["HF_HUB_DOWNLOAD_TIMEOUT"] = "4"
    process = client.start(f"fetch_model({LLAMA!r}, 'main', 'model')")
    wait_for_part(client, SHARD)
    wrong.set()
    output, _ = process.communicate()
    half.set()
    assert "error: model-00003-of-00004.safetensors: the checksum" in output
    kept = part_of(client, SHARD)
    assert kept > 0
    assert client.model(LLAMA).code == 0
    assert requests_for(hub, SHARD)[-1][0] == kept


def test_broken_transfers_and_a_hub_that_stumbles_are_borne(hub: LocalHub, client: Client) -> None:
    hub.fail(SHARD, times=2, cut=200_000)
    hub.fail("tokenizer.json", times=1, status=503)
    finished = client.model(LLAMA)
    assert finished.code == 0, finished.output
    starts = [start for start, _ in requests_for(hub, SHARD)]
    assert len(starts) == 3
    assert starts == sorted(starts) and starts[1] > 0
    assert same_as_on_the_hub(client.folder / "model", repository(hub, LLAMA))


def test_a_moved_branch_keeps_what_did_not_change(
    hub: LocalHub, client: Client, tmp_path: Path
) -> None:
    """Parts of the older commit are used where the content is the same, and only there."""
    hub.fail(SHARD, cut=400_000, die=True)
    client.model(LLAMA)
    kept = part_of(client, SHARD)
    folder = tmp_path / "moved"
    shutil.copytree(repository(hub, LLAMA).folder, folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    moved = RemoteRepository("model", LLAMA, folder, gated=True)
    hub.repositories[:] = [moved if r.name == LLAMA else r for r in hub.repositories]
    hub.start()
    assert client.model(LLAMA).code == 0
    assert requests_for(hub, SHARD)[-1][0] == kept
    assert same_as_on_the_hub(client.folder / "model", moved)
    assert origin(client.folder / "model") == {"repository": LLAMA, "commit": moved.commit}


# --- Refused ----------------------------------------------------------------------------------


def nothing_to_trust(client: Client) -> bool:
    """Neither a folder that a later run would take for whole, nor a file whose check failed."""
    return client.left() == []


@pytest.mark.parametrize(
    ("token", "line"),
    [
        (None, "gated; accept its licence at {page} and set HF_TOKEN to a token of your account"),
        (GUEST, "gated, and the account of HF_TOKEN has no access; accept its licence at {page} "
                "and wait until it is granted"),
        ("hf_misspelt", "the hub does not know this token; set HF_TOKEN to a valid one, "
                        "or unset it"),
    ],
)  # fmt: skip
def test_a_gated_model(client: Client, token: str | None, line: str) -> None:
    del client.environment["HF_TOKEN"]
    if token:
        client.environment["HF_TOKEN"] = token
    page = f"https://huggingface.co/{LLAMA}"
    assert client.model(LLAMA).error == f"{LLAMA}: {line.format(page=page)}"
    assert nothing_to_trust(client)


def test_an_open_model_needs_no_token(client: Client) -> None:
    del client.environment["HF_TOKEN"]
    assert client.model("mistralai/Mistral-7B-v0.1").code == 0


@pytest.mark.parametrize(
    ("name", "revision", "line"),
    [
        (LLAMA, "v9", f"{LLAMA}: has no revision 'v9'; correct it in the config, or take "
         "the newest with `revision: main`: results name the commit that was taken"),
        ("meta-llama/Lama", "main", "meta-llama/Lama: no such repository, or not with this token; "
                                    "check its name and HF_TOKEN"),
    ],
)  # fmt: skip
def test_a_name_that_the_hub_does_not_know(
    client: Client, name: str, revision: str, line: str
) -> None:
    assert client.model(name, revision).error == line
    assert nothing_to_trust(client)


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        (C4, {"files": "en/c5.json.gz"}, ["allenai/c4: has no file 'en/c5.json.gz'", "`files`"]),
        (C4, {"files": None}, ["allenai/c4: name the file of documents under `files`"]),
        (C4, {"revision": "v9"}, ["allenai/c4: has no revision 'v9'"]),
        (PIQA, {"name": "plain"}, ["baber/piqa: ", "plain", "`name` or `files`"]),
        (PIQA, {"files": {"test": "data/none.parquet"}}, ["baber/piqa: ", "none.parquet"]),
    ],
)
def test_a_data_set_that_is_asked_for_wrongly(
    client: Client, settings: dict, changes: dict, words: list[str]
) -> None:
    line = client.dataset(settings, **changes).error
    assert all(word in line for word in words), line
    assert nothing_to_trust(client)


def test_a_hub_that_is_down(hub: LocalHub, client: Client) -> None:
    hub.stop()
    for finished in (client.model(LLAMA), client.dataset(PIQA)):
        assert "the hub is out of reach" in finished.error
        assert "check the network and HF_ENDPOINT" in finished.error
    assert nothing_to_trust(client)


def test_a_hub_that_dies_while_a_data_set_is_looked_up(hub: LocalHub, client: Client) -> None:
    """What `datasets` makes of it must not be taken for a wrong name in the config."""
    hub.fail("revision/main", cut=10_000, die=True)
    line = client.dataset(PIQA).error
    assert line.startswith("baber/piqa: the hub is out of reach")
    assert "correct" not in line
    assert nothing_to_trust(client)


def test_a_data_set_whose_files_are_no_parquet(
    hub: LocalHub, client: Client, tmp_path: Path
) -> None:
    there = repository(hub, "baber/piqa", "dataset")
    shutil.copytree(there.folder, tmp_path / "broken")
    (tmp_path / "broken/data/test-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    hub.repositories.insert(0, RemoteRepository("dataset", "baber/piqa", tmp_path / "broken"))
    line = client.dataset(PIQA).error
    assert line.startswith("baber/piqa: its files cannot be read (")
    assert line.endswith("; choose another revision")
    assert nothing_to_trust(client)


def test_a_hub_that_fails(hub: LocalHub, client: Client) -> None:
    hub.fail("revision/main", status=503)
    line = client.model(LLAMA).error
    assert line.startswith(f"{LLAMA}: the hub fails (HTTP 503); run again later")
    assert client.model(LLAMA).code == 0


def test_transfers_that_keep_ending_early(hub: LocalHub, client: Client) -> None:
    hub.fail(SHARD, times=1, cut=300_000)
    hub.fail(SHARD, times=99, cut=0)
    line = client.model(LLAMA).error
    assert line.startswith(f"{SHARD}: the transfer ended at ")
    assert "of 592360 bytes" in line
    assert line.endswith("try again, it goes on from there")
    assert nothing_to_trust(client)
    hub.faults.clear()
    assert client.model(LLAMA).code == 0
    assert same_as_on_the_hub(client.folder / "model", repository(hub, LLAMA))


@pytest.mark.parametrize("file", [SHARD, "tokenizer.json"])
def test_a_wrong_checksum(hub: LocalHub, client: Client, file: str) -> None:
    """In large-file storage by its SHA-256, elsewhere by git's hash."""
    hub.fail(file, damage=True)
    line = client.model(LLAMA).error
    assert line.startswith(f"{file}: the checksum of what arrived is not the one")
    assert nothing_to_trust(client)
    assert not list((client.folder / ".model.download").glob(f"*-{file}*"))
    hub.faults.clear()
    assert client.model(LLAMA).code == 0
    assert same_as_on_the_hub(client.folder / "model", repository(hub, LLAMA))


def changed(hub: LocalHub, tmp_path: Path, change) -> None:
    """Put another version of the model onto the hub, hashes and all."""
    folder = tmp_path / "changed"
    shutil.copytree(repository(hub, LLAMA).folder, folder)
    change(folder)
    hub.repositories.insert(0, RemoteRepository("model", LLAMA, folder))


def cut_header(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-8])


def swap_shards(folder: Path) -> None:
    shutil.copyfile(folder / SHARD.replace("2-of", "1-of"), folder / SHARD)


def no_safetensors(folder: Path) -> None:
    for file in folder.glob("model*.safetensors*"):
        file.unlink()


def quantised_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (folder / "config.json").write_text(json.dumps(config))


def quantised_shard(folder: Path) -> None:
    tensors = {name: tensor.char() for name, tensor in load_file(folder / SHARD).items()}
    save_file(tensors, folder / SHARD, {"format": "pt"})


def test_a_quantised_model_is_refused_before_its_weights_are_fetched(
    hub: LocalHub, client: Client, tmp_path: Path
) -> None:
    changed(hub, tmp_path, quantised_config)
    line = client.model(LLAMA).error
    assert line.startswith(f"{LLAMA}: config.json: quantization_config (gptq): a quantised")
    assert not requests_for(hub, SHARD)
    assert nothing_to_trust(client)


def test_quantised_weights_are_refused(hub: LocalHub, client: Client, tmp_path: Path) -> None:
    changed(hub, tmp_path, quantised_shard)
    line = client.model(LLAMA).error
    assert line.startswith(f"{LLAMA}/{SHARD}: ") and "(I8) is quantised" in line
    assert nothing_to_trust(client)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / SHARD).unlink(), f"its index names {SHARD}, which it does not hold"),
        (cut_header, f"{SHARD} is no valid safetensors file"),
        (swap_shards, "which its index puts there"),
        (no_safetensors, "holds no safetensors; pickled weights are never loaded"),
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json or tokenizer.model"),
    ],
)
def test_a_repository_that_is_not_whole(
    hub: LocalHub, client: Client, tmp_path: Path, change, words: str
) -> None:
    changed(hub, tmp_path, change)
    line = client.model(LLAMA).error
    assert line.startswith(f"{LLAMA}: ")
    assert words in line
    assert nothing_to_trust(client)


def test_a_disk_that_is_too_small_is_noticed_before_the_transfer(
    hub: LocalHub, client: Client
) -> None:
    prefix = with_small_disk(client.folder, 1_000_000)
    line = client.run(f"fetch_model({LLAMA!r}, 'main', 'model')", *prefix).error
    assert "the disk has" in line and "1.8 MB are to be fetched" in line
    assert not requests_for(hub, SHARD)


def test_a_disk_that_fills_up(hub: LocalHub, client: Client) -> None:
    """The shard fits packed, and not unpacked; nothing of it may look whole."""
    shard = repository(hub, "allenai/c4", "dataset").files[C4["files"]]
    prefix = with_small_disk(client.folder, shard["size"] + 160_000)
    call = f"""try:
    fetch_dataset({C4!r}, 'data')
finally:
    import os
    print('LEFT', sorted(os.listdir('.')), sorted(os.listdir('.data.download')))"""
    finished = client.run(call, *prefix)
    assert finished.error.startswith("allenai/c4: the disk is full")
    assert finished.error.endswith("what has arrived is kept")
    left = finished.output.partition("LEFT ")[2].splitlines()[0]
    assert "'data'" not in left
    assert "c4-train.00000-of-01024.json.gz'" in left  # kept for the next run


def test_a_disk_that_is_full_while_a_file_arrives(hub: LocalHub, client: Client) -> None:
    """Every write to /dev/full fails as on a full disk."""
    hub.fail(SHARD, cut=200_000, die=True)
    client.model(LLAMA)
    (part,) = (client.folder / ".model.download").glob(f"*-{SHARD}*.part")
    part.unlink()
    part.symlink_to("/dev/full")
    hub.start()
    assert "the disk is full" in client.model(LLAMA).error
    assert nothing_to_trust(client)
    part.unlink()
    assert client.model(LLAMA).code == 0
    assert same_as_on_the_hub(client.folder / "model", repository(hub, LLAMA))


def test_without_network_fetching_fails(client: Client) -> None:
    """The same cut as in the study's test: it does keep this stage from the hub."""
    prefix, client.environment = without_network(client.environment)
    finished = client.run(f"fetch_model({LLAMA!r}, 'main', 'model')", *prefix)
    assert "the hub is out of reach" in finished.error


def test_the_cut_without_namespaces_cuts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASS_NO_NAMESPACES", "1")
    prefix, client.environment = without_network(client.environment)
    assert prefix == []
    assert "the hub is out of reach" in client.model(LLAMA).error


def test_offline_mode_is_named(client: Client) -> None:
    client.environment["HF_HUB_OFFLINE"] = "1"
    for finished in (client.model(LLAMA), client.dataset(PIQA)):
        assert "cannot be fetched while HF_HUB_OFFLINE is set" in finished.error


def test_the_weights_are_those_of_the_hub(hub: LocalHub, client: Client) -> None:
    """Loaded as tensors, from the folder that was fetched in two runs."""
    hub.fail("model-00001-of-00004.safetensors", cut=150_000, die=True)
    client.model(LLAMA)
    hub.start()
    assert client.model(LLAMA).code == 0
    for path in sorted((client.folder / "model").glob("*.safetensors")):
        ours, theirs = load_file(path), load_file(repository(hub, LLAMA).folder / path.name)
        assert ours.keys() == theirs.keys()
        assert all((ours[name] == theirs[name]).all() for name in ours)
