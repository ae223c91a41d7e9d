"""Draw a model's calibration windows and save their tokens."""

from dass.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.calibration import draw_windows, load_tokenizer, put_bos_in_front, save_tokens
    from dass.corpora import Documents

    params = snakemake.params
    calibration = params.calibration
    encode, bos_id = load_tokenizer(params.model)
    windows = draw_windows(
        Documents(params.documents),
        encode,
        sequences=calibration["sequences"],
        length=calibration["length"],
        seed=calibration["seed"],
    )
    if params.bos == "window":
        # As long as the other models' windows: BOS takes the place of the last token.
        windows = put_bos_in_front(windows[:, :-1], bos_id)
    save_tokens(snakemake.output.tokens, {"windows": windows})
