"""The commands of ``memedit``: each a thin layer over the library, grouped by what they are for.

The order in which these files know each other: `exits` (exit codes, the one translation of errors), `output` (where
things are printed), `render` and `explaining` (what edits and decisions look like), `runtime` (what a command works
with), `completion` and `options` (what it is given), `group` (how commands are found and their errors caught), then the
commands themselves. Nothing here imports torch, transformers, faiss, SQLAlchemy or NumPy before a command runs:
``memedit --help`` has to be quick.
"""
