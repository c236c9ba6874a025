"""Editing methods behind one interface, for comparing them: memory editors and parameter editors alike.

One file a method. `memedit.editors.editor` says what a method is; `memedit.editors.registry` lists them.
"""
