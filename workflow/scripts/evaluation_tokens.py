"""Tokenise an evaluation text for one model and save its windows, split by split."""

from dass.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.calibration import load_tokenizer, save_tokens
    from dass.corpora import find_split, read_rows
    from dass.perplexity import cut_windows, tokenise

    params = snakemake.params
    encode, bos_id = load_tokenizer(params.model)

    def windows_of(split):
        path = find_split(params.text, split)
        tokens = tokenise(read_rows(path, params.rows), encode, params.bos, bos_id)
        return cut_windows(tokens, params.length, params.bos, bos_id, str(path))

    save_tokens(snakemake.output.tokens, {split: windows_of(split) for split in params.splits})
