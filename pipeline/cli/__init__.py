"""The `pipe` command: click groups whose commands are imported only when they are called."""
