"""The qualitative viewer: a static page of every run's predictions.

choose.py    which runs and data sets of a store are shown
build.py     what is made, in order:
  frames.py    images, ground truth, teachers' maps and target distributions
  students.py  predictions
  index.py     what the page reads first
pack.py      depth maps and distributions in few bytes, with a stated error
site.py      what lies where in the viewer's folder;  links.py  its address, from a page elsewhere
serve.py     the folder over HTTP, for this machine alone
command.py   the `tiekd view` command
page/        the page itself: HTML, CSS and scripts as they are, without a build step
"""
