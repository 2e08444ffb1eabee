"""What was learnt: tables, figures and pages made from the run store alone.

schema.py      metrics, labels, and the columns of runs.parquet and tables.parquet
records.py     reading the run store, file by file
collect.py     run store -> data frames
statistics.py  means, intervals and tests over seeds
tables.py      runs -> cells -> tables.parquet
paper.py       the published tables, digit for digit
layout.py      cells -> rows of text, as a reader sees them
notes.py       what stands beneath a table
render.py      rows of text -> Markdown and LaTeX
plots.py       figures, each with its data beside it: curves.py, dots.py, sensitivity.py (panels.py: small multiples)
page.py        tables.md, tables.tex, published.*, report.md
write.py       all files into one folder
commands.py    the `tiekd report` command
"""
