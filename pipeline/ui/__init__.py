"""What people see: renderers of the event stream, error messages, tables. A renderer is `update(event)`, `tick(now)`, `close()`."""
