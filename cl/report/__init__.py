"""The report: one self-contained page about a set of runs, and every figure for a paper.

`figure` says what a chart shows; `svg` draws it into the page, `paper` as PNG, SVG and csv.
"""
