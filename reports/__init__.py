"""Tables, figures and pages made from the run store alone.

loading/   the run store as data frames
tables/    runs grouped into cells, statistics over seeds and over test images, tables.parquet
figures/   figures, each with its data beside it
pages/     the content of report.*, tables.*, runs.md and published.*, and their files
render/    page blocks as Markdown, HTML and LaTeX
viewer/    the `tiekd view` command: predictions side by side
published/ the published tables as CSV
cli.py     the `tiekd report` command
"""
