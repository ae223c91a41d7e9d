"""Write the study's report, as PDF and as HTML."""

from dass.runtime.job import job

with job(snakemake.log[0], snakemake.threads):
    from dass.report.document import make_report, report_html, report_pdf
    from dass.report.speed_sections import speed_sections
    from dass.report.speed_tables import read_all
    from dass.report.table import TableSettings, read_summary
    from dass.results.published import read_published

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
