"""Write the study's report, as PDF and as HTML."""

from dass.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.published import read_published
    from dass.report import make_report, report_html, report_pdf
    from dass.speed.report import speed_sections
    from dass.speed.tables import read_all
    from dass.tables import TableSettings, read_summary

    params = snakemake.params
    speed = read_all(snakemake.input.speed, snakemake.input.speed_pruning)
    report = make_report(
        read_summary(snakemake.input.summary),
        [TableSettings(**settings) for settings in params.experiments],
        title=f"DaSS, reproduced: study {params.study}",
        description=params.description,
        note=params.note,
        published=[row for file in snakemake.input.published for row in read_published(file)],
        more=speed_sections(*speed, params.speed),
    )
    report_pdf(report, snakemake.output.pdf)
    report_html(report, snakemake.output.html)
