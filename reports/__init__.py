"""What was learnt: tables, figures and pages made from the run store alone.

schema.py      metrics, labels, and the columns of runs.parquet and tables.parquet
records.py     reading the run store, file by file: described.py (what a config says of its run), costs.py
images.py      the rows of test images, summed and written;  apart.py  read by a process of their own where runs are many
collect.py     run store -> data frames
statistics.py  means, intervals and tests over seeds
resampling.py  intervals over test images, by drive or scene
cells.py       runs -> cells, and each cell's baseline
results.py     the numbers of all cells at once
tables.py      cells -> tables -> tables.parquet
ablation.py    what a study varied: one factor at a time, grids
paper.py       the published tables, digit for digit
sheet.py       a table as a reader sees it; its rows: entries.py, layout.py, views.py; beneath it: notes.py
texts.py       texts of a page, escaped at once
blocks.py      what a page is made of, as Markdown (markdown.py), HTML (html.py, report.html.j2), LaTeX (latex.py)
listing.py     the runs behind every number;  origin.py  how to make a report again
plots.py       figures, each with its data beside it (panels.py: widths, colours, small multiples): curves.py, dots.py,
               effects.py, sensitivity.py, heatmap.py, frontier.py (accuracy against cost), importance.py
page.py        report.*, tables.*, runs.md, published.*
write.py       all files into one folder;  folder.py  which stay and which go
commands.py    the `tiekd report` command
viewer/        the `tiekd view` command: predictions as a page to look at, to which reports lead (links.py)
"""
