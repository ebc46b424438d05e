"""HashiCorp's configuration language, as far as bake files use it: text to nodes (`parser`), nodes to values (`evaluate`).

Values are plain: None, bool, int, float, str, list, dict. Nothing here knows of targets. Written out by hand because a template within a string
within a template wants a parser that is called from within itself; python-hcl2, which is lark, leaves expressions and templates as text.
"""
