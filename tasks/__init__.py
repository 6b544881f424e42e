"""The stages of the pipeline, one module each: config table, recipe, function, Prefect task.

A stage's name is one noun everywhere: ``tasks/logits.py`` makes artifacts of the kind ``logits``
from the config table ``[logits]``, and its Prefect task is called ``logits``.
"""
