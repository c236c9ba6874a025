"""The commands of ``memedit``: each a thin layer over the library, grouped by what they are for.

The order in which these files know each other: `exits` (exit codes, one translation of every error), `output`
(where things are printed and how), `render` (edits, tables, plain lines), `runtime` (what a command works
with), `options` (what it is given), `group` (how commands are found and their errors caught), then the
commands themselves. Nothing here imports torch, transformers, faiss or SQLAlchemy before a command runs:
``memedit --help`` has to be quick.
"""
