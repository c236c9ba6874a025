"""Editing methods behind one interface, for comparing them: memory editors and parameter editors alike.

One file a method. `memedit.editors.editor` says what a method is, `memedit.editors.registry` lists them::

    from memedit.editors import Subject, create_editor

    editor = create_editor("ft-m", Subject.load("smollm2-135m-instruct"))
"""

from __future__ import annotations

from memedit.editors.editor import EditCost, Editor, MethodInfo, RoutedEditor, Treatment
from memedit.editors.memory_editor import MemoryEditor
from memedit.editors.registry import Method, create_editor, method_info, method_infos, method_names
from memedit.editors.subject import Subject

__all__ = [
    "EditCost",
    "Editor",
    "MemoryEditor",
    "Method",
    "MethodInfo",
    "RoutedEditor",
    "Subject",
    "Treatment",
    "create_editor",
    "method_info",
    "method_infos",
    "method_names",
]
