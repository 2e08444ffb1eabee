"""Render a page's blocks as Markdown, HTML and LaTeX."""
