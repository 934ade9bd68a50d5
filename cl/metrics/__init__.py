"""Measures of forgetting: named pure functions of what a run recorded. Imports numpy only.

Every metric is a function decorated with `cl.metrics.base.metric`; `cl.metrics.base.discover` finds them by walking
this package. Its parameters are named after fields of `cl.results.Results` (plus `joint` and `naive`, the accuracy
matrices of reference runs), so `cl.metrics.base.measure` can compute every metric that a run has the data for.
"""
