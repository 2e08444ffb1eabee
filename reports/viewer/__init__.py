"""A static page with the predictions of all runs side by side.

command.py   the `tiekd view` command
choose.py    which runs and data sets are shown
build.py     write all files
frames.py    data files per frame: images, ground truth, teacher maps, targets, predictions
index.py     the indexes that the page reads first
encoding.py  compact encoding of depth maps and distributions, with a known error
site.py      layout of the viewer's folder
links.py     links from a report into a viewer
serve.py     HTTP server on this machine
page/        HTML, CSS and scripts of the page, used as they are, without a build step
"""
